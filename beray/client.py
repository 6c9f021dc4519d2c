"""The synchronous client of the BeRay API, on `requests`.

Its methods are one line each: `protocol/calls.py` says what an operation is, the flows beside it how it is repeated,
resumed and waited for, and `drivers/` does what those ask for. `async_client.py` has the same methods.
"""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import requests

from beray import running
from beray.base_client import BaseClient, Options, Timeout
from beray.drivers.on_requests import Connections, Driver
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
from beray.results import TaskResult
from beray.running import Files, Job
from beray.transfers import downloads, folders, uploads
from beray.transfers.uploads import Content, Progress


class BeRayClient(BaseClient):
    """Accounts, tasks and files of one BeRay server. Thread-safe; use it as a context manager, or `close` it.

    Every method blocks until the answer is there. A call that failed for a passing reason is repeated where that
    can't do its work twice. Each method may raise:

    - `AuthenticationError`: not logged in, or the token is no longer good.
    - `APIError`: the server refused; the subclasses say why.
    - `NetworkError`: no whole answer came (`ConnectionFailed`, `RequestTimeout`).
    - `ProtocolError`: the answer is not a BeRay server's.

    All of these are `BeRayException`s.

    Args:
        base_url: Where the server is, such as `http://localhost:8000`.
        token: An `access_token` obtained earlier; `login` and `register` set it too.
        timeout: Seconds to connect and seconds without a byte of the answer; one number means both.
        stream_timeout: Seconds a task's stream may be silent before it counts as cut. A BeRay server sends a
            heartbeat every 15 s; raise this for a server that sends none.
        max_retries: Repetitions after the first attempt of a call; with 0, cut streams are not resumed either.
        deadline: Seconds for a whole call, repetitions and the reading of its answer included (of a stream or a
            download: until it begins). It can't cut short the lookup of a name nor, with a `session` of your own, an
            answer's head or a redirect that comes byte by byte. None: no repetition begins later than a minute after
            the first attempt.
        language: `Accept-Language` of messages and errors, such as `en`; a BeRay server's own choice is Chinese.
        on_token_expired: Is called when the token has ended (by the server's answer, or by the end it named at the
            login); gives another token, or logs in by itself and gives None. The call is then made once more. One
            thread at a time asks for one, and others wait, five minutes at most: it may use this client, but must wait
            for no thread that does.
        on_request: Is called before each request with a `RequestInfo`.
        on_response: Is called after each request with a `ResponseInfo`, also where no answer came.
        session: A `requests.Session` of your own (proxies, certificates, hooks); it is used as it is, and yours
            to close. Without it, proxies and certificates come from the environment, read at the first call.
    """

    _driver: Driver

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
        on_token_expired: Callable[[], str | None] | None = None,
        on_request: Callable[[RequestInfo], object] | None = None,
        on_response: Callable[[ResponseInfo], object] | None = None,
        session: requests.Session | None = None,
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

    def _new_driver(self, session: requests.Session | None) -> Driver:
        return Driver(Connections(self._base_url, session), self._options, self._access)

    def close(self) -> None:
        """Close the connections. A session given by the caller stays open."""
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Accounts

    def request_verification_code(self, email: str) -> Message:
        """Have a verification code mailed to the address of a new account.

        Raises:
            ConflictError: The address is registered already.
            UnprocessableEntityError: It is no mail address.
        """
        return self._value(calls.request_verification_code(email))

    def register(self, email: str, verification_code: str, password: str) -> Session:
        """Make an account and log in to it: the token is kept for the calls that follow.

        Args:
            email: The address the code was mailed to.
            verification_code: The code.
            password: 8 to 256 characters.

        Raises:
            APIError: 400, the code is wrong, used or too old.
            ConflictError: The address is registered already.
        """
        return self._run(logins.log_in(calls.register(email, verification_code, password), self._conditions))

    def login(self, email: str, password: str) -> Session:
        """Log in; the token is kept for the calls that follow.

        Raises:
            AuthenticationError: Address or password is wrong.
        """
        return self._run(logins.log_in(calls.login(email, password), self._conditions))

    def login_with_form(self, email: str, password: str) -> Session:
        """Log in by the OAuth2 password form; otherwise like `login`."""
        return self._run(logins.log_in(calls.login_with_form(email, password), self._conditions))

    def get_current_user(self) -> User:
        """The account that is logged in."""
        return self._value(calls.get_current_user())

    def get_usage(self) -> DayUsage:
        """What the account's tasks have used today (UTC), and may; a limit of None is none."""
        return self._value(calls.get_usage())

    def logout(self) -> Message:
        """End the session: the token is dead on the server, and forgotten here.

        Raises:
            AuthenticationError: The token was dead already; it is forgotten all the same.
        """
        return self._run(logins.log_out(self._conditions))

    def request_password_reset(self, email: str) -> Message:
        """Have a code mailed with which `reset_password` sets another password.

        The answer is the same for an address without an account, which gets no mail.

        Raises:
            UnprocessableEntityError: It is no mail address.
        """
        return self._value(calls.request_password_reset(email))

    def reset_password(self, email: str, verification_code: str, password: str) -> Message:
        """Set another password for an account. Every login and every API token of it ends; log in anew.

        Args:
            email: The address the code was mailed to.
            verification_code: The code from `request_password_reset`.
            password: 8 to 256 characters.

        Raises:
            APIError: 400, the code is wrong, used or too old.
        """
        return self._value(calls.reset_password(email, verification_code, password))

    def list_tokens(self) -> list[ApiToken]:
        """The account's API tokens, newest first, without their secrets.

        Raises:
            AuthenticationError: 403, the client itself bears an API token: only a login can look after tokens.
        """
        return self._value(calls.list_tokens())

    def create_token(self, name: str, *, expires_in: int | None = None) -> CreatedApiToken:
        """Make an API token for a program. Its `token` is told in this answer only; a client takes it as `token`.

        Args:
            name: To tell it by, 1 to 100 characters.
            expires_in: Seconds until it expires, 60 to ten years; None: never.

        Raises:
            AuthenticationError: 403, the client itself bears an API token.
            ConflictError: There are as many tokens as there may be.
            UnprocessableEntityError: The name is blank or too long, or the time out of bounds.
        """
        return self._value(calls.create_token(name, expires_in=expires_in))

    def delete_token(self, token_id: int) -> Message:
        """Delete an API token: it is dead at once.

        Raises:
            AuthenticationError: 403, the client itself bears an API token.
            NotFoundError: There is no such token, or it is someone else's.
        """
        return self._value(calls.delete_token(token_id))

    def get_webhook(self) -> Webhook:
        """Where the account's webhooks go, and how the latest deliveries went; the secret is not shown again."""
        return self._value(calls.get_webhook())

    def set_webhook(self, url: str | None, *, rotate_secret: bool = False) -> Webhook:
        """Have the server call `url` when one of the account's tasks ends, or asks something.

        Args:
            url: An https URL; None: nothing is called any more, but for tasks that have a `webhook_url` of their own.
            rotate_secret: Make a new secret; for 24 hours messages are signed with the old one too.

        Returns:
            The webhook, with its `secret` while that is new: for ten minutes after the first time, or after
            `rotate_secret`. Keep it for `beray.webhooks.verify`.

        Raises:
            AuthenticationError: 403, the client itself bears an API token: only a login can set a webhook.
            UnprocessableEntityError: The server sends no webhooks to that URL.
        """
        return self._value(calls.set_webhook(url, rotate_secret=rotate_secret))

    def delete_webhook(self) -> Webhook:
        """Call nobody any more, and forget what has not been delivered; the secret stays."""
        return self._value(calls.set_webhook(None))

    # Tasks

    def create_task(
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

        Args:
            goal: What shall be done, in words.
            tools: Names of the tools the agent may use; None is the server's default set.
            limits: What the task may use, each at most what the server allows: `requests`, `tool_calls`, `tokens`,
                `wall_seconds`, `cost_usd`.
            model: Name of one of the models that `get_info` lists; None is the server's default.
            hold: Wait for `start_task`, so that files can be uploaded first; after an hour the task ends `stopped`.
            webhook_url: Where the server shall say that the task has ended, or asks something; in place of the
                account's (`set_webhook`).
            idempotency_key: The same key and goal within 24 hours give the same task again, not a second one. Without
                it each call has a key of its own, which covers the repetitions made here.

        Raises:
            UnprocessableEntityError: The goal is empty or too long, a tool is unknown, the model is not offered, or
                the server sends no webhooks to that URL.
            ConflictError: The key was used with another goal.
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
        return self._value(call)

    def start_task(self, task_id: int) -> Task:
        """Start a task that was created with `hold=True`.

        Raises:
            ConflictError: It has been started already.
        """
        return self._value(calls.start_task(task_id))

    def send_message(
        self, task_id: int, content: str, *, question_id: str | None = None, idempotency_key: str | None = None
    ) -> Task:
        """Say something to a task: its agent reads it before its next step.

        A task that waits takes it as the answer to its question. A task that has ended begins a further run, with
        this as its goal, in the same work_dir and with all that was said before.

        Args:
            task_id: Id from `create_task`.
            content: What to say, in words.
            question_id: Say it only as the answer to this question (the task's `question`): a late answer is then
                refused, where it would else begin a further run.
            idempotency_key: As for `create_task`.

        Raises:
            NotFoundError: No such task, or it is someone else's.
            ConflictError: The task is being stopped, works by fixed rules, which read no messages, or the question is
                no longer open.
            UnprocessableEntityError: The message is empty or too long.
        """
        call = calls.send_message(task_id, content, question_id=question_id, idempotency_key=idempotency_key)
        return self._value(call)

    def list_tasks(
        self,
        *,
        limit: int | None = None,
        before: int | None = None,
        status: str | Sequence[str] | None = None,
        search: str | None = None,
    ) -> list[Task]:
        """The user's tasks, newest first, asked for page by page; `iter_tasks` gives them as they come.

        Args:
            limit: At most so many; None gives all.
            before: Only those with a lower id.
            status: Only those in this state, or in one of several, such as `("queued", "running")`.
            search: Only those whose goal holds this text.
        """
        wanted = Wanted.of(limit=limit, before=before, status=status, search=search)
        return self._run(paging.all_tasks(wanted, self._conditions))

    def iter_tasks(
        self,
        *,
        limit: int | None = None,
        before: int | None = None,
        status: str | Sequence[str] | None = None,
        search: str | None = None,
    ) -> Generator[Task, None, None]:
        """As `list_tasks`, a page at a time as the caller goes on."""
        wanted = Wanted.of(limit=limit, before=before, status=status, search=search)
        return self._iterate(paging.each_page(wanted, self._conditions))

    def get_task(self, task_id: int, *, events: str | None = None) -> Task:
        """One task with its `events`.

        Args:
            task_id: Id from `create_task`.
            events: `all` (the default), `none` or `tail:N`.

        Raises:
            NotFoundError: No such task, or it is someone else's.
        """
        return self._value(calls.get_task(task_id, events=events))

    def stream_task_updates(self, task_id: int, *, after: int = 0) -> Generator[Event, None, None]:
        """Yield the task's events as they happen, and end when the task has ended.

        Reconnects by itself and resumes after the last event seen, so none is lost or repeated. Breaking out of the
        loop closes the connection; the task goes on.

        From a server whose events carry no `seq` as their id, each event's `data` is yielded as it comes and a cut is
        an error. Data that is no JSON object, which a BeRay server never sends, is yielded as
        `{"type": <event type>, "data": <JSON value or text>}`.

        Args:
            task_id: Id from `create_task`.
            after: Start after this `seq`; 0 replays from the beginning.

        Yields:
            One event object (the documentation's page "Events" has their types), `seq` rising by exactly 1.

        Raises:
            NotFoundError: No such task, or it is someone else's. This and the other refusals come at the first
                step, before any event.
            NetworkError: The connection was lost and could not be made again for about a minute.
            ProtocolError: Events are missing; says with which `after` to ask again. Or it is no event stream.
        """
        return self._iterate(streams.stream(task_id, self._conditions, after=after))

    def wait_for_task(
        self,
        task_id: int,
        timeout: float | None = None,
        *,
        on_event: Callable[[Event], object] | None = None,
        on_question: Callable[[Question], str | None] | None = None,
    ) -> Task:
        """The task, once it has completed, failed or been stopped: `status` and `result` tell how.

        It listens to the task's stream, so nothing is asked again and again; a server that streams nothing is asked
        every few seconds. Ctrl-C and an error of a callback leave the task running.

        Args:
            task_id: Id from `create_task`.
            timeout: Seconds to wait; None waits on.
            on_event: Is called with each event from now on.
            on_question: Is called with what the agent asks (`question_id`, `question`, `choices`) and gives the
                answer, or None to leave it to somebody else. Without it a task that asks goes on waiting.

        Raises:
            WaitTimeout: The task has not ended in time; it goes on.
            NotFoundError: No such task, or it is someone else's.
        """
        attention = Attention(on_event=on_event, on_question=on_question, timeout=timeout)
        return self._run(waiting.wait(task_id, self._conditions, attention))

    def run(
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
        on_question: Callable[[Question], str | None] | None = None,
    ) -> TaskResult:
        """Make a task, give it its files, and wait for what comes of it.

        Ctrl-C, an error of a callback and `WaitTimeout` leave the task running. If its files can't be uploaded it is
        deleted: it has not begun then.

        Args:
            goal: As for `create_task`, like `tools`, `limits`, `model` and `webhook_url`.
            tools: Names of the tools the agent may use.
            files: Local files and folders, each under its own name in the work_dir; or a mapping from paths of the
                work_dir to content as for `upload_file`, where a `pathlib.Path` may be a folder too.
            limits: What the task may use.
            model: Name of the model.
            webhook_url: What the server calls when the task has ended, or asks something.
            progress: Called as `progress(done_bytes, total_bytes)` while files are uploaded, of all files together.
            timeout: Seconds to wait; None waits on.
            on_event: Is called with each event.
            on_question: As for `wait_for_task`.

        Returns:
            Its `text`, `files` and `status`; `download(folder)` takes the files. A task that failed is a result too:
            `raise_if_failed()` makes an exception of it.

        Raises:
            WaitTimeout: The task has not ended in time; it goes on.
            OSError: A local file is not there; no task was made.
            ValueError: Two local files have the same name.
        """
        create = calls.create_task(
            goal, tools=tools, model=model, limits=limits, hold=bool(files), webhook_url=webhook_url
        )
        attention = Attention(on_event=on_event, on_question=on_question, timeout=timeout)
        job = Job(create=create, files=files, attention=attention, progress=progress)
        return TaskResult(self._run(running.run(job, self._conditions)), self)

    def stop_task(self, task_id: int) -> StopAnswer:
        """Stop a task that is queued, running or waiting; stopping it again changes nothing.

        Raises:
            ConflictError: It has completed or failed already.
        """
        return self._value(calls.stop_task(task_id))

    def delete_task(self, task_id: int) -> Message:
        """Delete a task with its events and files; a running one is stopped first.

        Raises:
            NotFoundError: No such task, or it is someone else's.
        """
        return self._value(calls.delete_task(task_id))

    # Files of a task's work_dir

    def list_files_tree(self, task_id: int, path: str = ".") -> list[FileNode]:
        """The files and directories below `path`.

        Args:
            task_id: Id from `create_task`.
            path: Relative to the work_dir, `/`-separated; `.` is the work_dir itself.

        Raises:
            NotFoundError: No such task or directory.
        """
        return self._value(calls.list_files_tree(task_id, path))

    def upload_file(
        self,
        task_id: int,
        path: str,
        content: Content,
        content_type: str | None = None,
        *,
        progress: Progress | None = None,
    ) -> UploadAnswer:
        """Write a file of the work_dir, new or in place of an old one; it is whole or not there.

        What is sent is hashed on its way and compared with what the server says it has.

        Args:
            task_id: Id from `create_task`.
            path: Where to, relative to the work_dir, `/`-separated; missing directories are made.
            content: Bytes, text (sent as UTF-8), a `pathlib.Path` to read, or a file opened for reading bytes, read
                from where it stands; the last two are never whole in memory. What can't seek, such as a pipe, is sent
                once: a failure is not repeated.
            content_type: Guessed from `path` if not given.
            progress: Called as `progress(done_bytes, total_bytes)` for each piece; the total of a pipe is None. It
                must be quick. When the upload is repeated, it begins at 0 again.

        Raises:
            APIError: 413, larger than the server takes; the old content is still there.
            UnprocessableEntityError: The path leaves the work_dir.
            UploadDamaged: The file could not be read as a whole, or the server has other bytes.
            TypeError: `content` is of another type.
            OSError: The file can't be opened.
        """
        kind = None if content_type is None else header_value("content_type", content_type)
        return self._run(
            uploads.upload_file(task_id, path, content, self._conditions, content_type=kind, progress=progress)
        )

    def upload_dir(
        self, task_id: int, local_dir: str | os.PathLike[str], path: str = ".", *, progress: Progress | None = None
    ) -> list[UploadAnswer]:
        """Upload all files below a folder, one by one, by their names; those that are there already are replaced.

        A link to a file within the folder is uploaded as that file. Left out are links to folders, what is no
        regular file, and empty folders. Everything is judged before the first byte is sent; when a file fails later,
        those before it are there.

        Args:
            task_id: Id from `create_task`.
            local_dir: The folder; its own name is not part of the names.
            path: Where to, relative to the work_dir; `.` is the work_dir itself.
            progress: Called as `progress(done_bytes, total_bytes)`, of all files together.

        Returns:
            What `upload_file` gives, for each file.

        Raises:
            FolderRefused: A link leads out of the folder, a name can't be had in a work_dir, or there are more than
                100,000 files and folders; nothing was sent.
            APIError: As for `upload_file`.
            OSError: The folder can't be read.
        """
        return self._run(folders.upload_dir(task_id, local_dir, path, self._conditions, progress=progress))

    def get_tool_output(self, task_id: int, call_id: str) -> bytes:
        """All that a tool call has printed so far, of which the events may hold the beginning only.

        Args:
            task_id: Id from `create_task`.
            call_id: Of the call, as the events `tool.started`, `tool.output` and `tool.finished` have it.

        Returns:
            What the command wrote, both streams as they came; a BeRay server keeps the first 16 MiB.

        Raises:
            NotFoundError: No such task or call, or it has printed nothing.
        """
        return self._response(calls.get_tool_output(task_id, call_id), is_streamed=False).content

    def get_file_content(self, task_id: int, path: str, *, stream: bool = False) -> requests.Response:
        """A file's bytes, as `response.content`.

        Args:
            task_id: Id from `create_task`.
            path: Relative to the work_dir, `/`-separated.
            stream: Leave the body unread, for `response.iter_content`; the caller closes the response.

        Raises:
            NotFoundError: No such task or file.
        """
        return self._response(calls.get_file_content(task_id, path), is_streamed=stream)

    def download_files_as_zip(
        self, task_id: int, paths: Sequence[str] | None = None, *, stream: bool = False
    ) -> requests.Response:
        """Files and directories of the work_dir as a ZIP archive, as `response.content`.

        Args:
            task_id: Id from `create_task`.
            paths: Relative to the work_dir, `/`-separated; None or empty takes all.
            stream: Leave the body unread, for `response.iter_content`; the caller closes the response.

        Raises:
            NotFoundError: No such task, or one of the paths is missing.
        """
        return self._response(calls.download_files_as_zip(task_id, paths or ()), is_streamed=stream)

    def download_file(
        self,
        task_id: int,
        path: str,
        to: str | os.PathLike[str],
        *,
        overwrite: bool = True,
        progress: Progress | None = None,
    ) -> Path:
        """Download a file of the work_dir to this machine; it is whole or not there.

        It grows in a hidden `.part` file beside its place. When the connection is cut, the download goes on where it
        was; when it is given up (Ctrl-C, a full disk, no network), the next call with the same place goes on. At the
        end its length and, from a BeRay server, its SHA-256 are compared with the server's.

        Args:
            task_id: Id from `create_task`.
            path: Relative to the work_dir, `/`-separated.
            to: The file to write, or an existing folder, in which it has its own name; missing folders are made.
            overwrite: Replace a file that is there. With False, one that has the server's SHA-256 is left as it is
                and counts as downloaded; any other is an error.
            progress: Called as `progress(done_bytes, total_bytes)` for each piece; the total is None where the server
                doesn't tell. It must be quick; what it raises ends the download.

        Returns:
            Where the file is.

        Raises:
            NotFoundError: No such task or file.
            FileExistsError: With `overwrite=False`: another file is there.
            NetworkError: The connection was lost and could not be made again.
            DownloadDamaged: The content was not what the server has, twice; nothing was kept.
            OSError: The file can't be written. When the disk is full, the message says what was kept.
        """
        return self._run(
            downloads.download_file(task_id, path, to, self._conditions, overwrite=overwrite, progress=progress)
        )

    def download_dir(
        self,
        task_id: int,
        path: str,
        to: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        progress: Progress | None = None,
    ) -> list[Path]:
        """Download all that is below a folder of the work_dir, file by file; calling it again goes on where it ended.

        Links of the work_dir are left out. All names are judged before the first byte comes; when a file fails later,
        those before it are there. Nobody else may change `to` meanwhile.

        Args:
            task_id: Id from `create_task`.
            path: The folder, relative to the work_dir; `.` is the work_dir itself.
            to: The folder to write into, which has afterwards what the other has; it is made.
            overwrite: Replace files that are there. With False, those that have the server's SHA-256 count as
                downloaded; any other ends the work.
            progress: Called as `progress(done_bytes, total_bytes)`, of all files together.

        Returns:
            The files, as absolute paths, sorted.

        Raises:
            FolderRefused: A name leads out of the folder, can't be had here or is there twice when case is ignored;
                a link is in the way; or there are more than 100,000 files and folders.
            NotFoundError: No such task or folder.
            FileExistsError: With `overwrite=False`: another file is there.
            BeRayException: As for `download_file`.
        """
        return self._run(
            folders.download_dir(task_id, path, to, self._conditions, overwrite=overwrite, progress=progress)
        )

    def download_zip(
        self,
        task_id: int,
        to: str | os.PathLike[str],
        paths: Sequence[str] | None = None,
        *,
        overwrite: bool = True,
        progress: Progress | None = None,
    ) -> Path:
        """Download files and folders as a ZIP archive to this machine; it is whole or not there.

        The server packs while it sends, so a cut begins anew. `extract_zip_safely` unpacks the archive.

        Args:
            task_id: Id from `create_task`.
            to: The file to write, or an existing folder, in which it is called `task-<id>.zip`.
            paths: Relative to the work_dir, `/`-separated; None or empty takes all.
            overwrite: Replace a file that is there.
            progress: Called as `progress(done_bytes, None)` for each piece: nobody knows the total before.

        Returns:
            Where the archive is.

        Raises:
            NotFoundError: No such task, or one of the paths is missing.
            FileExistsError: With `overwrite=False`: a file is there.
            NetworkError: The connection was lost and could not be made again.
            DownloadDamaged: The archive was not whole, twice.
        """
        return self._run(
            downloads.download_zip(
                task_id, to, self._conditions, paths=paths or (), overwrite=overwrite, progress=progress
            )
        )

    def delete_file(self, task_id: int, path: str) -> Message:
        """Delete a file of the work_dir.

        Raises:
            NotFoundError: No such task or file.
        """
        return self._value(calls.delete_file(task_id, path))

    # Service

    def get_health(self) -> Health:
        """Whether the server is alive."""
        return self._value(calls.get_health())

    def get_ready(self) -> Ready:
        """The state of the server's parts and how to mend them; also returned while it is not ready."""
        return self._value(calls.get_ready())

    def get_info(self) -> Info:
        """The server's version, models, sandbox and limits."""
        return self._value(calls.get_info())

    def check_model(self, model: str | None = None) -> ModelCheck:
        """Have the server ask a model for one word, to see whether it works; may take half a minute.

        Args:
            model: Name of one of the models that `get_info` lists; None is the server's default.

        Raises:
            UnprocessableEntityError: The model is not offered.
            NotFoundError: The server is an older one, which can't tell.
        """
        return self._value(calls.check_model(model))

    # From calls and flows to answers

    def _value(self, call: Call[Result]) -> Result:
        return self._driver.run(flows.value(call, self._conditions))

    def _response(self, call: Call[bytes], *, is_streamed: bool) -> requests.Response:
        answer = self._driver.run(flows.request(call, self._conditions, is_streamed=is_streamed))
        return cast(requests.Response, answer.response)

    def _run(self, flow: Flow[Result]) -> Result:
        return self._driver.run(flow)

    def _iterate(self, flow: Flow[None]) -> Generator[Any, None, None]:
        return self._driver.iterate(flow)
