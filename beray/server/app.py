"""The one place that wires the server together. Read this first.

`create_app(settings)` gives an ASGI application. `open` opens the database, and /health answers. What takes longer, the
sandbox and the engine, is begun by `begin_work`, beside requests; until both work /ready says 503.
"""

import asyncio
import contextlib
import functools
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final, cast

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from beray import __version__
from beray.server.admin import routes as admin_routes
from beray.server.admin.overview import Overview, Told
from beray.server.admin.service import Admins
from beray.server.agent.budget import limits_of
from beray.server.agent.ledger import DayLedger
from beray.server.agent.mcp.source import open_mcp_sources
from beray.server.agent.models import routes as model_routes
from beray.server.agent.models.checking import ModelChecks
from beray.server.agent.models.choice import Models, key_variables
from beray.server.agent.models.connections import ModelConnections
from beray.server.agent.models.prices import load_prices
from beray.server.agent.plugins import load_plugins
from beray.server.agent.run import AgentRun, Outcome
from beray.server.agent.stuck import StuckRules
from beray.server.agent.tools import TOOL_NAMES
from beray.server.agent.tools.catalogue import ToolCatalogue, ToolSource
from beray.server.agent.web.source import open_web_fetch
from beray.server.api_document import describe_api
from beray.server.api_page import add_api_page
from beray.server.audit import AuditTrail
from beray.server.auth import routes as auth_routes
from beray.server.auth.client_address import ClientAddresses
from beray.server.auth.passwords import LEAST_CHARACTERS, MOST_CHARACTERS
from beray.server.auth.secret_key import load_secret_key
from beray.server.auth.service import Accounts, open_accounts
from beray.server.clock import DAY_MS, Clock, system_clock
from beray.server.cluster import SEEN_MS, Cluster
from beray.server.console_files import ConsoleFiles
from beray.server.db import migrate
from beray.server.db import tasks as task_queries
from beray.server.db import usage as usage_queries
from beray.server.db.notices import Notice
from beray.server.db.open import database_url, make_database
from beray.server.db.processes import Process
from beray.server.direct import DirectRoutes
from beray.server.edge import Edge, refusal
from beray.server.engine.base import Engine
from beray.server.engine.dbos_queue import DbosQueue
from beray.server.engine.dbos_worker import LOCAL_EXECUTOR, DbosWorker
from beray.server.errors import Refused, shown
from beray.server.events.log import EventLog
from beray.server.events.wakeups import Wakeups
from beray.server.files import routes as file_routes
from beray.server.files.service import Files
from beray.server.files.x_accel import open_x_accel
from beray.server.heap import importing
from beray.server.messages import Language, current_language, text
from beray.server.readiness import Readiness
from beray.server.rounds import attempt, repeat
from beray.server.sandbox.base import Capabilities, Limits, Sandbox
from beray.server.sandbox.uids import TaskUids
from beray.server.service_routes import build_routers as build_service_routers
from beray.server.settings import Settings
from beray.server.tasks import routes as task_routes
from beray.server.tasks.account_deletions import AccountDeletions
from beray.server.tasks.answers import TaskAnswers
from beray.server.tasks.control import RunControl
from beray.server.tasks.runner import RunAgent, Runner, Workshop
from beray.server.tasks.service import Tasks
from beray.server.tasks.stream import BEAT_SECONDS, Hub, Streams
from beray.server.tasks.usage import DayUsage
from beray.server.tasks.view import task_view
from beray.server.validation import malformed_body, validation_refusal
from beray.server.webhooks import routes as webhook_routes
from beray.server.webhooks.delivery import Deliveries
from beray.server.webhooks.messages import Announcer
from beray.server.webhooks.reach import open_reach
from beray.server.webhooks.secrets import Secrets
from beray.server.webhooks.service import Webhooks
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.work_dir import WorkDirs

API: Final = "/api/v1"
ENGINE_AGAIN_SECONDS = 5  # between tries to start the engine (the disk may have been full)
TIDY_SECONDS = 30  # how often held tasks and old idempotency answers are looked through
LOOK_SECONDS = 15  # how often runs are looked through for stops whose notice was lost
PURGE_SECONDS = 86_400  # how often what is older than `retention_days` is deleted
PURGE_FIRST_SECONDS = 5  # after the start, when it has settled
PURGE_AGAIN_SECONDS = 300  # after a purge that failed
PURGE_LOOK_SECONDS = 1.0  # between looks whether this process can purge
PURGE_LOOKS = 60  # then it is told that purging waits
LOOKED_MS = SEEN_MS + 6_000  # two looks at who is old enough to be seen: then it is known who uses another folder
ENGINE_KEPT_MS = (
    7 * DAY_MS
)  # the engine's own records of ended runs; nothing reads them but people who look for a fault
USAGE_DAYS = 400  # that use is kept for: a year, and what an invoice for its last month may be asked about
FREE_BYTES_LEAST = 64 << 20  # below this much free disk /ready says so: SQLite needs room to commit

log = logging.getLogger("beray")

_has_app = False


def create_app(
    settings: Settings,
    models: Models,
    *,
    clock: Clock = system_clock,
    announce: Callable[[str], None] = lambda line: None,
    environ: Mapping[str, str] | None = None,
) -> "App":
    """Make the server's ASGI application. One per process: the engine can't be had twice.

    Args:
        settings: What the operator set.
        models: The models that work (`choose_models`).
        clock: Milliseconds since the epoch.
        announce: Shows a line to the operator (a verification code that went to the outbox).
        environ: Where the variables are looked up that the operator's files name; default: nowhere.

    Raises:
        RuntimeError: There is an application in this process already.
        SandboxUnavailable: The server is root, but can't give commands another uid.
        CatalogueError: A plug-in can't be used.
        SettingError: A setting of its parts can't be used.
    """
    global _has_app  # the engine library is a singleton; a second app would share its runs silently
    if _has_app:
        raise RuntimeError("create_app was called twice in one process; start a second process instead")
    _has_app = True
    return App(settings, models, clock=clock, announce=announce, environ=environ or {})


class App:
    """The server's parts, and the ASGI callable over them."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        *,
        clock: Clock,
        announce: Callable[[str], None],
        environ: Mapping[str, str],
    ) -> None:
        self.settings = settings
        self.models = models
        self.prices = load_prices(settings.prices)
        self._connections = ModelConnections()
        self._budgets = limits_of(settings)
        self.catalogue = _open_catalogue(settings, environ)
        self.readiness = Readiness()
        self.work_dirs_path = settings.work_dirs or settings.data_dir / "tasks"
        url = database_url(settings)
        self.database = make_database(url)
        self.database.deliver = self._hear
        self.cluster: Cluster | None = None
        if self.database.is_shared:
            self.cluster = Cluster(self.database, self.work_dirs_path, self.readiness, role=settings.role)
            self.database.note_reachable = self.cluster.note_listening
        self._clock = clock
        self.trail = AuditTrail(self.database, clock)
        self.wakeups = Wakeups()
        announcer = Announcer(task_view, clock)
        self.events = EventLog(self.database, self.wakeups, clock, on_stored=announcer)
        self.streams = Streams(settings.max_streams_per_user)
        self.hub = Hub(self.events, reads_inline=self.database.reads_inline)
        self._accounts: Accounts | None = None
        self._reach = open_reach(settings)
        self._deliveries: Deliveries | None = None
        if settings.role != "worker":
            self._accounts = open_accounts(settings, self.database, clock=clock, trail=self.trail, announce=announce)
            if not self.database.is_shared:
                self._accounts.remember_tokens()
            secrets = Secrets(load_secret_key(settings))
            self._webhooks = Webhooks(self.database, clock, secrets=secrets, reach=self._reach, trail=self.trail)
            self._deliveries = Deliveries(self.database, clock, secrets=secrets, reach=self._reach)
        self.model_checks = ModelChecks(
            models,
            prices=self.prices,
            ledger_of=lambda user_id: DayLedger(self.database, clock, user_id, self._budgets),
        )
        self.capabilities: Capabilities | None = None
        self._sandbox: Sandbox | None = None
        self._task_uids = TaskUids(settings.sandbox_uid_base)
        self._background: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False
        self.has_tried_engine = asyncio.Event()

        self._control = control = RunControl()
        self._work_dirs = work_dirs = WorkDirs(
            self.work_dirs_path,
            allows_hard_links=settings.sandbox != "none",
            min_free_bytes=settings.min_free_bytes,
        )
        self.stored = StoredBytes(self.database, work_dirs, most=settings.max_stored_bytes)
        self.tasks = Tasks(
            database=self.database,
            events=self.events,
            work_dirs=work_dirs,
            control=control,
            clock=clock,
            models=models,
            trail=self.trail,
            task_uid=self._task_uids,
            stored=self.stored,
            prices=self.prices,
            catalogue=self.catalogue,
            reach=self._reach,
        )
        self._account_deletions = AccountDeletions(self.database, self.tasks.deletions, clock)
        if self._accounts is not None:
            self._accounts.own.on_deleted = lambda user_id: self._spawn(self._remove_account(user_id))
        patient = self.database.patient
        self.runner = Runner(
            database=patient,
            events=EventLog(patient, self.wakeups, clock, on_stored=announcer),
            work_dirs=work_dirs,
            control=control,
            clock=clock,
            run_agent=_run_agent,
            stored=StoredBytes(patient, work_dirs, most=settings.max_stored_bytes),
        )
        self.tasks.deletions.is_folder_right = self._is_folder_right
        self._worker: DbosWorker | None = None
        if settings.role != "api":
            self._worker = DbosWorker(
                url,
                self.runner.run_task,
                per_user=settings.max_running_tasks_per_user,
                per_process=settings.max_running_tasks,
                executor_id=LOCAL_EXECUTOR if self.cluster is None else self.cluster.process.id,
            )
        self._engine: Engine = self._worker or DbosQueue(url)
        self._asgi = Edge(
            self._build_web(),
            default_language=cast(Language, settings.language),
            max_body_bytes=settings.max_body_bytes,
            clients=ClientAddresses(settings.trusted_proxies),
        )

    @property
    def accounts(self) -> Accounts:
        """The users' accounts; a process that only runs tasks has nothing to do with them."""
        assert self._accounts is not None, "a worker serves no users"
        return self._accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        await self._asgi(scope, receive, send)

    def _build_web(self) -> ASGIApp:
        web = FastAPI(
            title="BeRay",
            version=__version__,
            redirect_slashes=False,
            lifespan=self._lifespan,
            docs_url=None,  # the framework's pages load scripts from another host; ours is `api_page.py`
            redoc_url=None,
        )
        offered = [choice.name for choice in self.models.offered]
        describe_api(web, models=offered, tools=self.catalogue.names)
        add_api_page(web)
        service, info = build_service_routers(self._check, self.info)
        web.include_router(service)
        install_error_handlers(web, note_refused=self._note_refused)
        if self.settings.role == "worker":
            return web
        web.include_router(info, prefix=API)
        web.include_router(model_routes.build_router(self.model_checks, self.accounts), prefix=API)
        web.include_router(auth_routes.build_router(self.accounts), prefix=API)
        web.include_router(webhook_routes.build_router(self._webhooks, self.accounts), prefix=API)
        usage = DayUsage(self.database, self._clock, self._budgets)
        answers = TaskAnswers(self.tasks, self.accounts, self.hub, self.streams)
        web.include_router(task_routes.build_router(self.tasks, self.accounts, answers, usage), prefix=API)
        files = Files(
            self.tasks.open_work_dir,
            self.stored,
            self.trail,
            find_outputs=self.tasks.find_outputs,
            max_upload_bytes=self.settings.max_upload_bytes,
            x_accel=open_x_accel(self.settings, self.work_dirs_path),
        )
        web.include_router(self._build_admin(), prefix=API)
        file_router, direct_files = file_routes.build_router(files, self.accounts)
        web.include_router(file_router, prefix=API)
        handlers = {**answers.direct, **direct_files}
        return DirectRoutes(ConsoleFiles(web), f"{API}/tasks", handlers, note_refused=self._note_refused)

    def _build_admin(self) -> APIRouter:
        told = Told(
            process=self._process(),
            info=self.info,
            check=self._check,
            last_check=self.model_checks.last,
            count_running=self._count_running,
        )
        overview = Overview(self.database, self._clock, work_dirs=self.work_dirs_path, told=told)
        admins = Admins(self.database, self._clock, tasks=self.tasks, trail=self.trail)
        return admin_routes.build_router(admins, overview, self.accounts)

    def _process(self) -> Process:
        if self.cluster is not None:
            return self.cluster.process
        host = socket.gethostname()[:255]
        return Process(LOCAL_EXECUTOR, role=self.settings.role, host=host, pid=os.getpid(), version=__version__)

    async def _count_running(self) -> Mapping[str, int] | None:
        engine = self.tasks.engine
        return None if engine is None else await engine.count_running()

    def _note_refused(self, refused: Refused) -> None:
        if refused.code == "task_not_found":
            self.trail.note_missing(cast(int, refused.params["task_id"]))

    @asynccontextmanager
    async def _lifespan(self, web: FastAPI) -> AsyncIterator[None]:
        try:
            await self.open()
            await self.begin_work()
            yield
        finally:
            await self.close()

    async def open(self) -> None:
        """Open the database, and come among the processes that share it: all that a request may need.

        Raises:
            NewerSchemaError: The database was made by a newer BeRay.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._migrate)
        self.database.open()
        self.readiness.set("database", "ok")
        self.readiness.set("model", "ok")
        if self.cluster is not None:
            await self.cluster.join(self._worker)
        if self.cluster is None or self.cluster.has_volume:
            await self._spare_folders()

    async def begin_work(self) -> None:
        """Begin what is done again and again, and open the sandbox; then the engine starts in the background.

        Raises:
            SandboxUnavailable: Nothing can confine the agent's commands.
            SettingError: A setting of the sandbox can't be used.
        """
        self._begin_rounds()
        loading = self._spawn(self._engine.load())
        if self._worker is not None:
            await self._open_sandbox()
        self.readiness.set("sandbox", "ok")
        await loading  # two threads that import the same at once may see halves of it
        self._spawn(self._start_engine())

    def _begin_rounds(self) -> None:
        """Begin what is done again and again, and needs no more than the database."""
        # A notice can be lost with its connection; a stop must not be.
        self._spawn(repeat(self._stop_asked, "looking for stops", first=LOOK_SECONDS, every=LOOK_SECONDS))
        self._spawn(self.trail.run())
        self._spawn(repeat(self.hub.beat, "heartbeats", first=BEAT_SECONDS, every=BEAT_SECONDS))
        look = self.hub.look_at_logins
        self._spawn(repeat(look, "looking at logins", first=BEAT_SECONDS, every=BEAT_SECONDS))
        if self._deliveries is not None:
            self._spawn(self._deliveries.run())
        if self.settings.role != "worker":
            self._spawn(repeat(self.tasks.tidy, "tidying", first=TIDY_SECONDS, every=TIDY_SECONDS))
            finish = self._finish_deletions
            self._spawn(repeat(finish, "finishing deletions", first=TIDY_SECONDS, every=TIDY_SECONDS))
            self._spawn(
                repeat(
                    self._forget_use,
                    "forgetting old use",
                    first=TIDY_SECONDS,
                    every=PURGE_SECONDS,
                    again=PURGE_AGAIN_SECONDS,
                )
            )
            self._spawn(
                repeat(
                    self._purge_old,
                    "purging",
                    first=PURGE_FIRST_SECONDS,
                    every=PURGE_SECONDS,
                    again=PURGE_AGAIN_SECONDS,
                )
            )

    async def _open_sandbox(self) -> None:
        from beray.server.sandbox.choose import open_sandbox  # not before /health answers

        self._sandbox, self.capabilities = await open_sandbox(self.settings, data_dir=self.settings.data_dir)
        self.runner.workshop = self._make_workshop(self._sandbox, self.capabilities)
        if self.cluster is not None:
            self.cluster.about["sandbox"] = _sandbox_info(self.capabilities)

    async def _spare_folders(self) -> None:
        """Number new tasks above every folder there is.

        After a backup was restored, the folder may know tasks that the database does not: the next user's task would
        get such an id, and the files.
        """
        if self.settings.role == "worker":  # makes no tasks
            return
        highest = await asyncio.to_thread(self._work_dirs.last_id)
        if highest > await self.database.read(task_queries.last_id):
            log.warning(
                "the newest folder is of task %s, which the database has never had; ids go on after it", highest
            )
            await self.database.write(lambda connection: task_queries.number_after(connection, highest))

    def _hear(self, notices: Sequence[Notice]) -> None:
        """Pass on what was committed, here or in another process."""
        if self._accounts is not None:
            self._accounts.hear(notices)  # first: whoever is woken asks whether they are still logged in
        self.wakeups.hear(notices)
        self.hub.hear(notices)
        if self._is_closing:
            return
        kinds = {notice.kind for notice in notices}
        if kinds & {"queue", "all"}:
            self._engine.wake()
        if self._deliveries is not None and kinds & {"webhook", "all"}:
            self._deliveries.wake()
        if kinds & {"stop", "all"}:
            self._spawn(self._stop_asked())
        if kinds & {"login", "all"}:
            self._spawn(self._look_at_logins())

    async def _look_at_logins(self) -> None:
        await attempt(self.hub.look_at_logins, "looking at logins")

    async def _stop_asked(self) -> None:
        with contextlib.suppress(Refused):  # the database is away: at the next look, or when it is back
            await self._control.stop_asked(self.database)

    async def _remove_account(self, user_id: int) -> None:
        await attempt(lambda: self._account_deletions.remove(user_id), "removing what was a deleted account's")

    async def _finish_deletions(self) -> None:
        await self.tasks.deletions.finish()
        await self._account_deletions.finish()

    async def _purge_old(self) -> None:
        """Delete what is older than the operator keeps it.

        Raises:
            Refused: `starting`: the engine does not work yet, or not all processes have been looked for;
                `disk_unavailable`: they have the files elsewhere.
            OSError: Some of it can't be removed.
        """
        await self._wait_settled()
        self.tasks.deletions.check_folder()
        now = self._clock()
        await self._engine.purge_ended(now - ENGINE_KEPT_MS)
        days = self.settings.retention_days
        if days:
            purged = await self.tasks.deletions.purge(now - days * DAY_MS)
            log.info("tasks older than %s days purged: %s", days, purged)
            if purged:
                about = f"{purged} tasks that ended more than {days} days ago"
                self.trail.note(self.trail.row("admin.purge", who="BERAY_RETENTION_DAYS", resource=about))

    async def _forget_use(self) -> None:
        first_day = self._clock() // DAY_MS - USAGE_DAYS
        await self.database.write(lambda connection: usage_queries.delete_before(connection, first_day))

    async def _wait_settled(self) -> None:
        for _ in range(PURGE_LOOKS):
            if self.tasks.engine is not None and self._has_looked_for_all():
                return
            await asyncio.sleep(PURGE_LOOK_SECONDS)
        raise Refused("starting")

    def _has_looked_for_all(self) -> bool:
        """Whether no process is so young that it may yet prove to have the work_dirs elsewhere."""
        if self.cluster is None:
            return True
        me = self.cluster.process.id
        is_known = self._is_folder_right() is not None
        return is_known and all(one.age_ms > LOOKED_MS for one in self.cluster.living if one.id != me)

    def _is_folder_right(self) -> bool | None:
        """Whether the work_dirs are where the other processes have them; None: not known yet."""
        if self.cluster is None:
            return True
        check = self.readiness.checks.get("work_dirs")
        return None if check is None else check["state"] == "ok"

    def _migrate(self) -> None:
        engine = self.database.make_engine()
        try:
            migrate.upgrade(engine)
        finally:
            engine.dispose()

    def _make_workshop(self, sandbox: Sandbox, capabilities: Capabilities) -> Workshop:
        settings = self.settings
        return Workshop(
            models=self.models,
            sandbox=sandbox,
            capabilities=capabilities,
            sandbox_limits=Limits(
                memory_bytes=settings.sandbox_memory_bytes,
                processes=settings.sandbox_processes,
                file_bytes=settings.sandbox_file_bytes,
                disk_bytes=settings.sandbox_disk_bytes,
                free_bytes=settings.min_free_bytes,
            ),
            budgets=self._budgets,
            prices=self.prices,
            context_tokens=settings.model_context_tokens or None,
            stuck=StuckRules() if settings.stuck_detection else None,
            task_uid=self._task_uids,
            catalogue=self.catalogue,
            answer_seconds=settings.answer_seconds,
            connections=self._connections,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        job = asyncio.create_task(work)
        self._background.add(job)
        job.add_done_callback(self._background.discard)
        return job

    async def _start_engine(self) -> None:
        while True:
            try:
                await self._engine.start()
                break
            except Exception as error:  # shown by /ready: the API still answers reads, and the operator sees why
                log.exception("the engine did not start; it is tried again every %s s", ENGINE_AGAIN_SECONDS)
                hint = (
                    f"The engine did not start ({type(error).__name__}). See the server's log."  # for anybody to read
                )
                self.readiness.set("engine", "failed", hint)
            self.has_tried_engine.set()
            await asyncio.sleep(ENGINE_AGAIN_SECONDS)
        self.tasks.engine = self._engine
        self.readiness.set("engine", "ok")
        self.has_tried_engine.set()
        if self.cluster is None:
            await attempt(self._finish_deletions, "finishing deletions")
        elif self._worker is not None:
            self.cluster.guard()

    async def _check(self) -> Readiness:
        """How the parts are now: what stores may have been filled or cut off since it was opened."""
        is_reached = self.readiness.checks["database"]["state"] == "ok"
        if self.cluster is not None:
            hint = await self._find_write_fault() if is_reached else None
            if hint is not None:  # the next beat looks anew
                self.readiness.set("database", "failed", hint)
        elif self.readiness.checks["database"]["state"] != "starting":
            hint = await self._find_storage_fault()
            self.readiness.set("database", "ok" if hint is None else "failed", hint)
        return self.readiness

    async def _find_storage_fault(self) -> str | None:
        """What is wrong, and how to mend it."""
        data_dir = self.settings.data_dir
        try:
            disk = await asyncio.to_thread(os.statvfs, data_dir)
        except OSError as error:
            return f"{data_dir} cannot be looked at ({error.strerror}). Bring its disk back."
        if disk.f_flag & os.ST_RDONLY:
            return f"{data_dir} is mounted read-only. Mount it writable, and see the system's log for why it is not."
        if (free := disk.f_bavail * disk.f_frsize) < FREE_BYTES_LEAST:
            return f"{data_dir} has only {free >> 20} MiB free. Delete tasks, or give it more room."
        return await self._find_write_fault()

    async def _find_write_fault(self) -> str | None:
        fault = await self.database.find_fault()
        return None if fault is None else f"The last write to {self.database.url.database} failed: {text(fault, 'en')}"

    def begin_close(self) -> None:
        """End the open streams, so that connections can close; their clients resume by Last-Event-ID.

        May be called by a signal's handler, whatever the loop is doing.
        """
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.hub.close)

    async def close(self) -> None:
        """Cut the runs (they go on at the next start), then close what was opened."""
        self._is_closing = True
        for job in tuple(self._background):
            job.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self.tasks.engine = None
        await _closed(self.model_checks.close, "closing the model checks")
        await _closed(self._engine.close, "closing the engine")
        await _closed(self._connections.close, "closing connections to models")
        if self.cluster is not None:
            await _closed(self.cluster.leave, "leaving the cluster")
        if self._sandbox is not None:
            await _closed(self._sandbox.close, "closing the sandbox")
        if self._accounts is not None:
            await _closed(self._accounts.close, "closing the accounts")
        await _closed(self.stored.settle, "settling what is stored")
        await _closed(self.trail.close, "closing the audit log")
        await asyncio.to_thread(self.database.close)

    async def count_active_tasks(self) -> int:
        """Tasks that are queued, running or waiting."""
        return await self.database.read(task_queries.count_active)

    def info(self) -> dict[str, Any]:
        """What /api/v1/info answers."""
        settings, model = self.settings, self.models.default
        return {
            "version": __version__,
            "model": model.name,
            "model_kind": model.kind,
            "model_notice": {"zh": model.notice("zh"), "en": model.notice("en")},
            "model_keys": key_variables(),
            "models": [{"name": choice.name, "model_kind": choice.kind} for choice in self.models.offered],
            "model_fallback": [choice.name for choice in self.models.fallback],
            "tools": self.catalogue.shown(),
            "sandbox": self._sandbox_info(),
            "prices": self.prices.info(),
            "mail": "outbox" if settings.smtp_url is None else "smtp",
            "password": {"least_characters": LEAST_CHARACTERS, "most_characters": MOST_CHARACTERS},
            "retention_days": settings.retention_days,
            "limits": {
                "requests": settings.max_requests,
                "tool_calls": settings.max_tool_calls,
                "tokens": settings.max_tokens,
                "wall_seconds": settings.max_run_seconds,
                "cost_usd": self._budgets.task.cost_usd,
                "user_day": asdict(self._budgets.user_day),
                "server_day": asdict(self._budgets.server_day),
                "upload_bytes": settings.max_upload_bytes,
                "streams_per_user": settings.max_streams_per_user,
                "stored_bytes_per_user": settings.max_stored_bytes,
                "running_tasks_per_user": settings.max_running_tasks_per_user,
            },
        }

    def _sandbox_info(self) -> dict[str, Any] | None:
        """What confines the commands: here, or where they run."""
        if self.settings.role != "api":
            return _sandbox_info(self.capabilities)
        told = [about.get("sandbox") for about in (self.cluster.about_workers() if self.cluster is not None else [])]
        return next((sandbox for sandbox in told if sandbox is not None), None)


async def _closed(close: Callable[[], Awaitable[object]], what: str) -> None:
    try:
        await close()
    except Exception:  # no fault of one part keeps the others open
        log.exception("%s failed", what)


def _open_catalogue(settings: Settings, environ: Mapping[str, str]) -> ToolCatalogue:
    """The tools built in, and those the operator has added."""
    sources: list[ToolSource] = [*open_web_fetch(settings)]
    sources += load_plugins(_taken(sources))
    sources += open_mcp_sources(settings, environ, taken=_taken(sources))
    built_in = tuple(name for name in TOOL_NAMES if name != "ask_user" or settings.answer_seconds > 0)
    return ToolCatalogue(built_in, tuple(sources))


def _taken(sources: Sequence[ToolSource]) -> tuple[str, ...]:
    return (*TOOL_NAMES, *(source.name for source in sources))


async def _run_agent(run: AgentRun) -> Outcome:
    # Imported at the first task: the model library costs 1.5 s and 50 MB.
    loop = await asyncio.to_thread(_import_loop)
    return await loop(run)


@functools.cache
def _import_loop() -> RunAgent:
    with importing():
        from beray.server.agent.loop import run_agent

    return run_agent


def _sandbox_info(capabilities: Capabilities | None) -> dict[str, Any] | None:
    if capabilities is None:
        return None
    return {
        "backend": capabilities.backend,
        "confinements": [
            {"name": row.name, "is_confined": row.is_confined, "note": row.note} for row in capabilities.confinements
        ],
        "python": capabilities.python,
        "notes": list(capabilities.notes),
    }


def install_error_handlers(web: FastAPI, *, note_refused: Callable[[Refused], None] = lambda refused: None) -> None:
    """Answer every error in the one shape.

    Args:
        web: The application.
        note_refused: Told what a route refused.
    """

    async def answer_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        note_refused(error)
        return _respond(request, error)

    web.add_exception_handler(Refused, answer_refused)
    web.add_exception_handler(HTTPException, _answer_http_exception)
    web.add_exception_handler(RequestValidationError, _answer_invalid)
    web.add_exception_handler(Exception, _answer_crash)


def _respond(request: Request, refused: Refused) -> Response:
    status, headers, body = refusal(refused, current_language.get(), request.scope["beray.request_id"])
    response = Response(status_code=status)
    response.raw_headers = headers
    response.body = body
    return response


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(request, validation_refusal(error, current_language.get()))


async def _answer_crash(request: Request, error: Exception) -> Response:
    """A fault of ours; the framework raises it again, and `Edge` logs it with the request's id."""
    return _respond(request, Refused("internal_error", request_id=request.scope["beray.request_id"]))


def _allowed_methods(request: Request) -> list[str]:
    """Every method that the path takes; the framework's own answer names those of the first route that fits."""
    routes = cast(FastAPI, request.app).routes
    asked = (
        (method, {**request.scope, "method": method}) for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
    )
    return [method for method, scope in asked if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself, in our shape."""
    assert isinstance(error, HTTPException)
    path = shown(request.scope["path"])
    if "beray.body_limit" in request.scope:
        return _respond(request, Refused("body_too_large", limit=request.scope["beray.body_limit"]))
    if error.status_code == 404:
        return _respond(request, Refused("not_found", path=path))
    if error.status_code == 405:
        allowed = ", ".join(_allowed_methods(request))
        refused = Refused("method_not_allowed", path=path, method=shown(request.method), allowed=allowed)
        response = _respond(request, refused)
        response.headers["allow"] = allowed
        return response
    if error.status_code == 400:  # the body could not be parsed at all (nested too deep, not UTF-8)
        return _respond(request, malformed_body(current_language.get()))
    return _respond(request, Refused("bad_request", reason=str(error.detail)))
