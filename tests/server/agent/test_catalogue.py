"""What a task may ask for beside the tools built in, and how a run gets it."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pydantic_ai import FunctionToolset

from beray.server.agent.tools import TOOL_NAMES
from beray.server.agent.tools.base import Answer, ToolError, title_of
from beray.server.agent.tools.catalogue import CHANGES_FILES, DESCRIPTIONS, CatalogueError, ToolCatalogue
from tests.server.agent.test_loop import choice
from tests.support.agent_bench import Crash
from tests.support.scripted_model import Reply, call, turns


@dataclass
class Weather:
    """A source of two tools, as a server of tools is one; tells when it is opened and closed."""

    name: str = "weather"
    description: str = "tells the weather"
    is_default: bool = False
    story: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, box):
        async def weather_now(city: str) -> Answer:
            """The weather now."""
            self.story.append(f"asked for {city}")
            if city == "Atlantis":
                raise ToolError("There is no weather in Atlantis. Ask for a city that exists.")
            box.run.work_dir.write_bytes("seen.txt", city.encode())
            return Answer(f"It rains in {city}.", "rain")

        async def weather_soon() -> Answer:
            """The weather soon."""
            return Answer("It may rain.", "perhaps")

        self.story.append("opened")
        try:
            yield FunctionToolset([weather_now, weather_soon], metadata={CHANGES_FILES: True})
        finally:
            self.story.append("closed")


def test_a_task_may_ask_for_what_is_built_in_and_what_sources_add():
    catalogue = ToolCatalogue(sources=(Weather(), Weather("tides", is_default=True)))

    assert catalogue.names == (*TOOL_NAMES, "weather", "tides")
    assert catalogue.default == (*TOOL_NAMES, "tides")
    assert catalogue.unknown(["shell", "weather", "teleport", "weather_now"]) == ["teleport", "weather_now"]
    assert [source.name for source in catalogue.sources_of(("shell", "weather"))] == ["weather"]
    assert catalogue.shown()[-1] == {"name": "tides", "description": "tells the weather", "is_default": True}


@pytest.mark.parametrize("names", [("shell",), ("weather", "weather")])
def test_two_tools_of_one_name_are_refused(names):
    with pytest.raises(CatalogueError, match=f"The name {names[0]} stands for two tools"):
        ToolCatalogue(sources=tuple(Weather(name) for name in names))


def test_every_tool_built_in_is_described():
    assert set(DESCRIPTIONS) >= set(TOOL_NAMES)


@pytest.mark.parametrize(
    ("name", "args", "title"),
    [
        ("write_file", {"path": "a.txt", "content": "x"}, "write_file a.txt"),
        ("finish", {"summary": "All is done."}, "finish"),
        ("weather_now", {"days": 3, "city": "Shanghai", "unit": "C"}, "weather_now Shanghai"),
        ("weather_soon", {}, "weather_soon"),
    ],
)
def test_title_says_what_a_call_does(name, args, title):
    assert title_of(name, args) == title


async def test_a_sources_tools_are_offered_run_and_recorded_like_any_other(bench, scripted):
    source = Weather()
    server = scripted(
        turns(
            Reply(calls=[call("weather_now", city="Shanghai"), call("weather_now", city="Atlantis")]),
            Reply("It rains."),
        )
    )

    outcome = await bench.run("Weather?", model=choice(server), tools=("finish", "weather"), sources=(source,))

    assert outcome.result == "It rains."
    assert [tool["function"]["name"] for tool in server.requests[0]["tools"]] == [
        "finish",
        "weather_now",
        "weather_soon",
    ]
    assert source.story == ["opened", "asked for Shanghai", "asked for Atlantis", "closed"]
    told = [message["content"] for message in server.requests[1]["messages"] if message["role"] == "tool"]
    assert told == ["It rains in Shanghai.", "Error: There is no weather in Atlantis. Ask for a city that exists."]
    assert [event["ok"] for event in await bench.events("tool.finished")] == [True, False]
    assert (await bench.events("tool.started"))[0]["title"] == "weather_now Shanghai"
    assert [event["path"] for event in await bench.events("file.changed")] == ["seen.txt"]


async def test_a_sources_call_that_has_ended_is_not_run_again_after_a_crash(bench, scripted):
    source = Weather()
    server = scripted(turns(Reply(calls=[call("weather_now", city="Oslo")]), Reply("It rains.")))

    def crash(when, types):
        if when == "after" and "tool.finished" in types:
            raise Crash(when, types)

    bench.crash = crash
    with pytest.raises(Crash):
        await bench.run("Weather?", model=choice(server), tools=("weather",), sources=(source,))
    bench.crash = None
    await bench.run("Weather?", model=choice(server), tools=("weather",), sources=(source,))

    assert source.story == ["opened", "asked for Oslo", "closed", "opened", "closed"]
    assert server.requests[-1]["messages"][-1]["content"] == "It rains in Oslo."


async def test_a_source_that_cannot_be_opened_ends_the_run_with_what_was_opened_closed(bench, scripted):
    good = Weather()

    class Broken(Weather):
        @asynccontextmanager
        async def open(self, box):
            raise OSError("no such server")
            yield

    with pytest.raises(OSError, match="no such server"):
        await bench.run("x", model=choice(scripted(turns())), tools=(), sources=(good, Broken("broken")))

    assert good.story == ["opened", "closed"]
