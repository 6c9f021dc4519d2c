"""The daily job that deletes what is older than the operator keeps it."""

from unittest.mock import AsyncMock, Mock

import pytest

from beray.server import app as app_module
from beray.server.agent.models.choice import ModelChoice, Models
from beray.server.app import App, create_app
from beray.server.db.processes import Living
from beray.server.db.usage import UsedSums, add_used, sum_of_all
from beray.server.errors import Refused
from beray.server.settings import Settings
from tests.support.databases import seeded_database
from tests.support.waiting import begun, until

DAY_MS = 86_400_000
AT = 100 * DAY_MS


def living(age_ms: int) -> Living:
    return Living("other", "worker", "host.example.com", 1, age_ms, "{}")


@pytest.fixture
def app(tmp_path, monkeypatch) -> App:
    """Keeps tasks for 30 days. Nothing in it has been started, its engine neither."""
    monkeypatch.setattr(app_module, "_has_app", False)
    monkeypatch.setattr(app_module, "PURGE_LOOK_SECONDS", 0.001)
    app = create_app(
        Settings(data_dir=tmp_path, retention_days=30), Models(ModelChoice("beray:rules", "rules")), clock=lambda: AT
    )
    app._engine = AsyncMock()
    monkeypatch.setattr(app.tasks.deletions, "purge", AsyncMock(return_value=0))
    return app


async def test_purge_waits_for_an_engine_that_starts_slowly(app):
    [purging] = await begun(app._purge_old())
    assert not app.tasks.deletions.purge.called

    app.tasks.engine = app._engine
    await until(purging.done, what="the purge")

    app.tasks.deletions.purge.assert_awaited_once_with(AT - 30 * DAY_MS)
    app._engine.purge_ended.assert_awaited_once_with(AT - 7 * DAY_MS)


async def test_purge_is_not_done_without_an_engine(app):
    """Nor is it skipped in silence: `repeat` tells it, and tries it again."""
    with pytest.raises(Refused) as refused:
        await app._purge_old()

    assert refused.value.code == "starting"
    assert not app.tasks.deletions.purge.called


@pytest.mark.parametrize(
    ("state", "age_ms", "code"),
    [
        ("ok", 60_000, None),
        ("ok", 9_000, "starting"),  # it may yet prove to be on another folder
        ("failed", 60_000, "disk_unavailable"),
        (None, 60_000, "starting"),
    ],
)
async def test_process_purges_only_where_the_others_have_their_files(app, state, age_ms, code):
    """Rows whose files are not found would go, and the files stay for ever."""
    app.cluster = Mock(process=Mock(id="me"), living=[living(age_ms)])
    if state is not None:
        app.readiness.set("work_dirs", state)
    app.tasks.engine = app._engine

    if code is None:
        await app._purge_old()
    else:
        with pytest.raises(Refused) as refused:
            await app._purge_old()
        assert refused.value.code == code

    assert app.tasks.deletions.purge.called is (code is None)


async def test_engine_forgets_its_runs_though_a_task_cannot_be_deleted(app):
    app.tasks.engine = app._engine
    app.tasks.deletions.purge.side_effect = OSError(13, "Permission denied")

    with pytest.raises(OSError, match="Permission denied"):
        await app._purge_old()

    assert app._engine.purge_ended.called


async def test_use_is_forgotten_after_400_days(app, tmp_path):
    app._clock = lambda: 1000 * DAY_MS
    used = UsedSums(requests=1)
    with seeded_database(tmp_path / "beray.db", 1, status="queued") as app.database:
        for day in (599, 600):
            await app.database.write(
                lambda connection, day=day: add_used(connection, task_id=1, user_id=1, day=day, used=used)
            )

        await app._forget_use()

        left = [await app.database.read(lambda connection, day=day: sum_of_all(connection, day)) for day in (599, 600)]
    assert [sums.requests for sums in left] == [0, 1]
