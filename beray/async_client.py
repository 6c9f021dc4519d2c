"""The asynchronous client of the BeRay API, on `aiohttp` (`pip install 'beray[async]'`).

It has the methods of `client.py`, under the same names and with the same arguments, to be awaited: both run the same
calls and flows, which `drivers/on_aiohttp.py` does here.
"""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

try:
    import aiohttp
except ImportError as error:
    raise ImportError("AsyncBeRayClient needs an extra package: pip install 'beray[async]'") from error

from beray import running
from beray.base_client import BaseClient, Options, Timeout
from beray.drivers.aiohttp_session import Connections
from beray.drivers.on_aiohttp import AsyncDriver
from beray.protocol import calls, flows, logins, paging, streams, waiting
from beray.protocol.access import header_value
from beray.protocol.calls import Call, Result
from beray.protocol.effects import Flow
from beray.protocol.paging import Wanted
from beray.protocol.types import (
    ApiToken,
    CreatedApiToken,
    DayUsage,
    Event,
    FileNode,
    Health,
    Info,
    Message,
    ModelCheck,
    Question,
    Ready,
    Session,
    StopAnswer,
    Task,
    UploadAnswer,
    User,
    Webhook,
)
from beray.protocol.waiting import Attention
from beray.protocol.watching import RequestInfo, ResponseInfo
from beray.results import AsyncTaskResult
from beray.running import Files, Job
from beray.transfers import downloads, folders, uploads
from beray.transfers.uploads import Content, Progress


class AsyncBeRayClient(BaseClient):
    """Accounts, tasks and files of one BeRay server, for asyncio. Use it with `async with`, or `close` it.

    The methods, their arguments and what they raise are those of `BeRayClient`; what is iterated over there is iterated
    over by `async for` here. Callbacks may be plain functions or coroutine functions; `progress` is a plain one.

    Calls of one event loop may run at the same time; for another event loop it makes connections of its own, so close
    it (and use it again) in each.

    A loop that is left by `break` closes its connection as soon as the iterator is dropped; with `contextlib.aclosing`
    it is closed at a known place.

    Args:
        base_url: Where the server is, such as `http://localhost:8000`.
        token: An `access_token` obtained earlier; `login` and `register` set it too.
        timeout: Seconds to connect and seconds without a byte of the answer; one number means both.
        stream_timeout: Seconds a task's stream may be silent before it counts as cut.
        max_retries: Repetitions after the first attempt of a call; with 0, cut streams are not resumed either.
        deadline: Seconds for a whole call, repetitions and the reading of its answer included (of a stream or a
            download: until it begins). None: no repetition begins later than a minute after the first attempt.
        language: `Accept-Language` of messages and errors, such as `en`; a BeRay server's own choice is Chinese.
        on_token_expired: Is called, and awaited if it is a coroutine function, when the token has ended; gives another
            token, or logs in by itself and gives None. The call is then made once more. One task of an event loop at
            a time asks for one, and others wait, five minutes at most.
        on_request: Is called before each request with a `RequestInfo`.
        on_response: Is called after each request with a `ResponseInfo`, also where no answer came.
        session: An `aiohttp.ClientSession` of your own; it is used as it is, and yours to close. Without it, proxies
            and certificates come from the environment.
    """

    _driver: AsyncDriver

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        timeout: Timeout = (5.0, 30.0),
        stream_timeout: float = 45.0,
        max_retries: int = 2,
        deadline: float | None = None,
        language: str | None = None,
        on_token_expired: Callable[[], str | Awaitable[str | None] | None] | None = None,
        on_request: Callable[[RequestInfo], object] | None = None,
        on_response: Callable[[ResponseInfo], object] | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        options = Options.checked(
            timeout=timeout,
            stream_timeout=stream_timeout,
            max_retries=max_retries,
            deadline=deadline,
            language=language,
            on_token_expired=on_token_expired,
            on_request=on_request,
            on_response=on_response,
        )
        super().__init__(base_url, token, options)
        self._driver = self._new_driver(session)

    def _new_driver(self, session: aiohttp.ClientSession | None) -> AsyncDriver:
        return AsyncDriver(Connections(self._base_url, session), self._options, self._access)

    async def close(self) -> None:
        """Close the connections. A session given by the caller stays open.

        Event loops that run in other threads keep theirs; each closes its own.
        """
        await self._driver.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # Accounts

    async def request_verification_code(self, email: str) -> Message:
        """Have a verification code mailed to the address of a new account.

        As `BeRayClient.request_verification_code`.
        """
        return await self._value(calls.request_verification_code(email))

    async def register(self, email: str, verification_code: str, password: str) -> Session:
        """Make an account and log in to it: the token is kept for the calls that follow.

        As `BeRayClient.register`.
        """
        return await self._run(logins.log_in(calls.register(email, verification_code, password), self._conditions))

    async def login(self, email: str, password: str) -> Session:
        """Log in; the token is kept for the calls that follow.

        As `BeRayClient.login`.
        """
        return await self._run(logins.log_in(calls.login(email, password), self._conditions))

    async def login_with_form(self, email: str, password: str) -> Session:
        """Log in by the OAuth2 password form; otherwise like `login`."""
        return await self._run(logins.log_in(calls.login_with_form(email, password), self._conditions))

    async def get_current_user(self) -> User:
        """The account that is logged in."""
        return await self._value(calls.get_current_user())

    async def get_usage(self) -> DayUsage:
        """What the account's tasks have used today (UTC), and may; a limit of None is none."""
        return await self._value(calls.get_usage())

    async def logout(self) -> Message:
        """End the session: the token is dead on the server, and forgotten here.

        As `BeRayClient.logout`.
        """
        return await self._run(logins.log_out(self._conditions))

    async def request_password_reset(self, email: str) -> Message:
        """Have a code mailed with which `reset_password` sets another password.

        As `BeRayClient.request_password_reset`.
        """
        return await self._value(calls.request_password_reset(email))

    async def reset_password(self, email: str, verification_code: str, password: str) -> Message:
        """Set another password for an account. Every login and every API token of it ends; log in anew.

        As `BeRayClient.reset_password`.
        """
        return await self._value(calls.reset_password(email, verification_code, password))

    async def list_tokens(self) -> list[ApiToken]:
        """The account's API tokens, newest first, without their secrets.

        As `BeRayClient.list_tokens`.
        """
        return await self._value(calls.list_tokens())

    async def create_token(self, name: str, *, expires_in: int | None = None) -> CreatedApiToken:
        """Make an API token for a program. Its `token` is told in this answer only; a client takes it as `token`.

        As `BeRayClient.create_token`.
        """
        return await self._value(calls.create_token(name, expires_in=expires_in))

    async def delete_token(self, token_id: int) -> Message:
        """Delete an API token: it is dead at once.

        As `BeRayClient.delete_token`.
        """
        return await self._value(calls.delete_token(token_id))

    async def get_webhook(self) -> Webhook:
        """Where the account's webhooks go, and how the latest deliveries went; the secret is not shown again."""
        return await self._value(calls.get_webhook())

    async def set_webhook(self, url: str | None, *, rotate_secret: bool = False) -> Webhook:
        """Have the server call `url` when one of the account's tasks ends, or asks something.

        As `BeRayClient.set_webhook`.
        """
        return await self._value(calls.set_webhook(url, rotate_secret=rotate_secret))

    async def delete_webhook(self) -> Webhook:
        """Call nobody any more, and forget what has not been delivered; the secret stays."""
        return await self._value(calls.set_webhook(None))

    # Tasks

    async def create_task(
        self,
        goal: str,
        tools: Sequence[str] | None = None,
        *,
        limits: Mapping[str, float] | None = None,
        model: str | None = None,
        hold: bool = False,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> Task:
        """Give the agent a goal; it begins as soon as there is room.

        As `BeRayClient.create_task`.
        """
        call = calls.create_task(
            goal,
            tools=tools,
            model=model,
            limits=limits,
            hold=hold,
            webhook_url=webhook_url,
            idempotency_key=idempotency_key,
        )
        return await self._value(call)

    async def start_task(self, task_id: int) -> Task:
        """Start a task that was created with `hold=True`.

        As `BeRayClient.start_task`.
        """
        return await self._value(calls.start_task(task_id))

    async def send_message(
        self, task_id: int, content: str, *, question_id: str | None = None, idempotency_key: str | None = None
    ) -> Task:
        """Say something to a task: its agent reads it before its next step.

        As `BeRayClient.send_message`.
        """
        call = calls.send_message(task_id, content, question_id=question_id, idempotency_key=idempotency_key)
        return await self._value(call)

    async def list_tasks(
        self,
        *,
        limit: int | None = None,
        before: int | None = None,
        status: str | Sequence[str] | None = None,
        search: str | None = None,
    ) -> list[Task]:
        """The user's tasks, newest first, asked for page by page; `iter_tasks` gives them as they come.

        As `BeRayClient.list_tasks`.
        """
        wanted = Wanted.of(limit=limit, before=before, status=status, search=search)
        return await self._run(paging.all_tasks(wanted, self._conditions))

    def iter_tasks(
        self,
        *,
        limit: int | None = None,
        before: int | None = None,
        status: str | Sequence[str] | None = None,
        search: str | None = None,
    ) -> AsyncGenerator[Task, None]:
        """As `list_tasks`, a page at a time as the caller goes on."""
        wanted = Wanted.of(limit=limit, before=before, status=status, search=search)
        return self._iterate(paging.each_page(wanted, self._conditions))

    async def get_task(self, task_id: int, *, events: str | None = None) -> Task:
        """One task with its `events`.

        As `BeRayClient.get_task`.
        """
        return await self._value(calls.get_task(task_id, events=events))

    def stream_task_updates(self, task_id: int, *, after: int = 0) -> AsyncGenerator[Event, None]:
        """Yield the task's events as they happen, and end when the task has ended.

        As `BeRayClient.stream_task_updates`.
        """
        return self._iterate(streams.stream(task_id, self._conditions, after=after))

    async def wait_for_task(
        self,
        task_id: int,
        timeout: float | None = None,
        *,
        on_event: Callable[[Event], object] | None = None,
        on_question: Callable[[Question], str | Awaitable[str | None] | None] | None = None,
    ) -> Task:
        """The task, once it has completed, failed or been stopped: `status` and `result` tell how.

        As `BeRayClient.wait_for_task`.
        """
        attention = Attention(on_event=on_event, on_question=on_question, timeout=timeout)
        return await self._run(waiting.wait(task_id, self._conditions, attention))

    async def run(
        self,
        goal: str,
        tools: Sequence[str] | None = None,
        *,
        files: Files | None = None,
        limits: Mapping[str, float] | None = None,
        model: str | None = None,
        webhook_url: str | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
        on_question: Callable[[Question], str | Awaitable[str | None] | None] | None = None,
    ) -> AsyncTaskResult:
        """Make a task, give it its files, and wait for what comes of it.

        As `BeRayClient.run`.
        """
        create = calls.create_task(
            goal, tools=tools, model=model, limits=limits, hold=bool(files), webhook_url=webhook_url
        )
        attention = Attention(on_event=on_event, on_question=on_question, timeout=timeout)
        job = Job(create=create, files=files, attention=attention, progress=progress)
        return AsyncTaskResult(await self._run(running.run(job, self._conditions)), self)

    async def stop_task(self, task_id: int) -> StopAnswer:
        """Stop a task that is queued, running or waiting; stopping it again changes nothing.

        As `BeRayClient.stop_task`.
        """
        return await self._value(calls.stop_task(task_id))

    async def delete_task(self, task_id: int) -> Message:
        """Delete a task with its events and files; a running one is stopped first.

        As `BeRayClient.delete_task`.
        """
        return await self._value(calls.delete_task(task_id))

    # Files of a task's work_dir

    async def list_files_tree(self, task_id: int, path: str = ".") -> list[FileNode]:
        """The files and directories below `path`.

        As `BeRayClient.list_files_tree`.
        """
        return await self._value(calls.list_files_tree(task_id, path))

    async def upload_file(
        self,
        task_id: int,
        path: str,
        content: Content,
        content_type: str | None = None,
        *,
        progress: Progress | None = None,
    ) -> UploadAnswer:
        """Write a file of the work_dir, new or in place of an old one; it is whole or not there.

        As `BeRayClient.upload_file`.
        """
        kind = None if content_type is None else header_value("content_type", content_type)
        return await self._run(
            uploads.upload_file(task_id, path, content, self._conditions, content_type=kind, progress=progress)
        )

    async def upload_dir(
        self, task_id: int, local_dir: str | os.PathLike[str], path: str = ".", *, progress: Progress | None = None
    ) -> list[UploadAnswer]:
        """Upload all files below a folder, one by one, by their names; those that are there already are replaced.

        As `BeRayClient.upload_dir`.
        """
        return await self._run(folders.upload_dir(task_id, local_dir, path, self._conditions, progress=progress))

    async def get_tool_output(self, task_id: int, call_id: str) -> bytes:
        """All that a tool call has printed so far, of which the events may hold the beginning only.

        As `BeRayClient.get_tool_output`.
        """
        response = await self._response(calls.get_tool_output(task_id, call_id), is_streamed=False)
        return await response.read()

    async def get_file_content(self, task_id: int, path: str, *, stream: bool = False) -> aiohttp.ClientResponse:
        """A file's bytes, by `await response.read()`; with `stream=True` piece by piece, by `response.content`.

        As `BeRayClient.get_file_content`.
        """
        return await self._response(calls.get_file_content(task_id, path), is_streamed=stream)

    async def download_files_as_zip(
        self, task_id: int, paths: Sequence[str] | None = None, *, stream: bool = False
    ) -> aiohttp.ClientResponse:
        """Files and directories of the work_dir as a ZIP archive, by `await response.read()`.

        As `BeRayClient.download_files_as_zip`.
        """
        return await self._response(calls.download_files_as_zip(task_id, paths or ()), is_streamed=stream)

    async def download_file(
        self,
        task_id: int,
        path: str,
        to: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        progress: Progress | None = None,
    ) -> Path:
        """Download a file of the work_dir to this machine; it is whole or not there.

        As `BeRayClient.download_file`.
        """
        return await self._run(
            downloads.download_file(task_id, path, to, self._conditions, overwrite=overwrite, progress=progress)
        )

    async def download_dir(
        self,
        task_id: int,
        path: str,
        to: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Download all that is below a folder of the work_dir, file by file; calling it again goes on where it ended.

        As `BeRayClient.download_dir`.
        """
        return await self._run(
            folders.download_dir(task_id, path, to, self._conditions, overwrite=overwrite, progress=progress)
        )

    async def download_zip(
        self,
        task_id: int,
        to: str | os.PathLike[str],
        paths: Sequence[str] | None = None,
        *,
        overwrite: bool = True,
        progress: Progress | None = None,
    ) -> Path:
        """Download files and folders as a ZIP archive to this machine; it is whole or not there.

        As `BeRayClient.download_zip`.
        """
        return await self._run(
            downloads.download_zip(
                task_id, to, self._conditions, paths=paths or (), overwrite=overwrite, progress=progress
            )
        )

    async def delete_file(self, task_id: int, path: str) -> Message:
        """Delete a file of the work_dir.

        As `BeRayClient.delete_file`.
        """
        return await self._value(calls.delete_file(task_id, path))

    # Service

    async def get_health(self) -> Health:
        """Whether the server is alive."""
        return await self._value(calls.get_health())

    async def get_ready(self) -> Ready:
        """The state of the server's parts and how to mend them; also returned while it is not ready."""
        return await self._value(calls.get_ready())

    async def get_info(self) -> Info:
        """The server's version, models, sandbox and limits."""
        return await self._value(calls.get_info())

    async def check_model(self, model: str | None = None) -> ModelCheck:
        """Have the server ask a model for one word, to see whether it works; may take half a minute.

        As `BeRayClient.check_model`.
        """
        return await self._value(calls.check_model(model))

    # From calls and flows to answers

    def _value(self, call: Call[Result]) -> Coroutine[Any, Any, Result]:
        return self._driver.run(flows.value(call, self._conditions))

    async def _response(self, call: Call[bytes], *, is_streamed: bool) -> aiohttp.ClientResponse:
        answer = await self._driver.run(flows.request(call, self._conditions, is_streamed=is_streamed))
        return cast(aiohttp.ClientResponse, answer.response)

    def _run(self, flow: Flow[Result]) -> Coroutine[Any, Any, Result]:
        return self._driver.run(flow)

    def _iterate(self, flow: Flow[None]) -> AsyncGenerator[Any, None]:
        return self._driver.iterate(flow)
