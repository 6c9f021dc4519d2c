"""Clients of models' servers are kept over runs, one for each server and key."""

from dataclasses import replace

import pytest

from beray.server.agent.models.building import build_model
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.connections import ModelConnections
from tests.support.scripted_model import Reply, sequence

CHOICE = ModelChoice("openai:one", "model", base_url="http://127.0.0.1:1/v1", api_key="key", is_own_url=True)


async def test_models_of_one_server_share_a_client():
    connections = ModelConnections()

    one, other = (
        build_model(choice, "en", connections=connections) for choice in (CHOICE, replace(CHOICE, name="openai:other"))
    )

    assert one.client is other.client
    await connections.close()
    assert one.client.is_closed()


@pytest.mark.parametrize("change", [{"api_key": "another"}, {"base_url": "http://127.0.0.1:2/v1"}])
async def test_another_key_or_server_gets_a_client_of_its_own(change):
    connections = ModelConnections()

    one = build_model(CHOICE, "en", connections=connections)
    other = build_model(replace(CHOICE, **change), "en", connections=connections)

    assert one.client is not other.client
    await connections.close()


async def test_a_client_that_fails_to_close_leaves_none_of_the_others_open(caplog):
    class Failing:
        async def close(self):
            raise OSError("the network is down")

    connections = ModelConnections()
    connections.client(CHOICE, lambda choice: Failing())
    other = build_model(CHOICE, "en", connections=connections)

    await connections.close()

    assert other.client.is_closed()
    assert "the network is down" in caplog.text


async def test_a_run_leaves_open_what_it_was_given_and_the_next_asks_over_it(bench, scripted):
    server = scripted(sequence(Reply("One."), Reply("Two.")))
    model = replace(CHOICE, base_url=server.base_url)
    connections = ModelConnections()

    await bench.run("go", model=model, connections=connections)
    await bench.end("completed")
    await bench.say("And again.")
    outcome = await bench.run("go", model=model, connections=connections)

    assert outcome.result == "Two."
    assert server.connected == 1
    await connections.close()
