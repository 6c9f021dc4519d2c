"""The synchronous client of the BeRay API, on `requests`.

Its methods are one line each: `protocol/calls.py` says what an operation is, `protocol/flows.py` how it is repeated
and resumed, and the two private drivers at the end do what those ask for.
"""

import os
import random
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self, cast

import requests
import urllib3

from beray import downloads, folders, uploads
from beray.exceptions import AuthenticationError, BeRayException, NetworkError, ProtocolError, RequestTimeout
from beray.protocol import calls, flows
from beray.protocol.calls import Call, Result
from beray.protocol.effects import Conditions, Do, Emit, Flow, Read, Send, Sleep, Tell
from beray.protocol.responses import Answer, value_of
from beray.protocol.retry import RetryPolicy
from beray.protocol.types import (
    FileNode,
    JsonObject,
    Message,
    ModelCheck,
    Session,
    StopAnswer,
    Task,
    UploadAnswer,
    User,
)
from beray.transport import (
    BearerAuth,
    TunedSession,
    network_error,
    normalize_base_url,
)
from beray.uploads import Content, Progress

_STREAM_CHUNK_BYTES = 64 * 1024


class BeRayClient:
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
        language: `Accept-Language` of messages and errors, such as `en`; a BeRay server's own choice is Chinese.
        session: A `requests.Session` of your own (proxies, certificates, hooks); it is used as it is, and yours
            to close. Without it, proxies and certificates come from the environment, read at the first call.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        *,
        timeout: float | tuple[float, float] = (5.0, 30.0),
        stream_timeout: float = 45.0,
        max_retries: int = 2,
        language: str | None = None,
        session: requests.Session | None = None,
    ) -> None:
        self._base_url = normalize_base_url(base_url)
        self._connect_timeout, self._read_timeout = _timeouts(timeout)
        self._stream_timeout = _positive("stream_timeout", stream_timeout)
        if max_retries < 0:
            raise ValueError(f"max_retries must be 0 or more; got {max_retries}")
        self._language = None if language is None else _header_value("language", language)
        self._conditions = Conditions(
            policy=RetryPolicy(max_retries=max_retries),
            clock=monotonic,
            random=random.random,
            language=self._language,
        )
        self._given_session = session
        self._own_session: TunedSession | None = None
        self._pid = os.getpid()
        self._token: str | None = None
        self.set_token(token)

    @property
    def base_url(self) -> str:
        """The server's root, without `/api/v1`."""
        return self._base_url

    @property
    def token(self) -> str | None:
        """The access token that calls carry; None when not logged in."""
        return self._token

    def set_token(self, token: str | None) -> None:
        """Use `token` for the calls that follow; None forgets it.

        Raises:
            ValueError: It holds characters that no token has.
        """
        self._token = None if token is None else _header_value("token", token)

    def close(self) -> None:
        """Close the connections. A session given by the caller stays open."""
        session, self._own_session = self._own_session, None
        if session is not None and self._pid == os.getpid():
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base_url!r}, {'with' if self._token else 'without'} token)"

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process gets a client with connections of its own. The token goes along."""
        if self._given_session is not None:
            raise TypeError(
                "a client with a session of your own can't be pickled; make the client in the other process"
            )
        remake = partial(
            type(self),
            self._base_url,
            self._token,
            timeout=(self._connect_timeout, self._read_timeout),
            stream_timeout=self._stream_timeout,
            max_retries=self._conditions.policy.max_retries,
            language=self._language,
        )
        return remake, ()

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
        return self._log_in(calls.register(email, verification_code, password))

    def login(self, email: str, password: str) -> Session:
        """Log in; the token is kept for the calls that follow.

        Raises:
            AuthenticationError: Address or password is wrong.
        """
        return self._log_in(calls.login(email, password))

    def login_with_form(self, email: str, password: str) -> Session:
        """Log in by the OAuth2 password form; otherwise like `login`."""
        return self._log_in(calls.login_with_form(email, password))

    def get_current_user(self) -> User:
        """The account that is logged in."""
        return self._value(calls.get_current_user())

    def logout(self) -> Message:
        """End the session: the token is dead on the server, and forgotten here.

        Raises:
            AuthenticationError: The token was dead already; it is forgotten all the same.
        """
        try:
            answer = self._value(calls.logout())
        except AuthenticationError:
            self._token = None
            raise
        self._token = None
        return answer

    # Tasks

    def create_task(
        self,
        goal: str,
        tools: Sequence[str] | None = None,
        *,
        limits: Mapping[str, float] | None = None,
        model: str | None = None,
        hold: bool = False,
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
            idempotency_key: The same key and goal within 24 hours give the same task again, not a second one. Without
                it each call has a key of its own, which covers the repetitions made here.

        Raises:
            UnprocessableEntityError: The goal is empty or too long, a tool is unknown, or the model is not offered.
            ConflictError: The key was used with another goal.
        """
        key = uuid.uuid4().hex if idempotency_key is None else _header_value("idempotency_key", idempotency_key)
        call = calls.create_task(goal, tools=tools, model=model, limits=limits, hold=hold, idempotency_key=key)
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
        key = uuid.uuid4().hex if idempotency_key is None else _header_value("idempotency_key", idempotency_key)
        call = calls.send_message(task_id, content, question_id=question_id, idempotency_key=key)
        return self._value(call)

    def list_tasks(self, *, limit: int | None = None, before: int | None = None) -> list[Task]:
        """The user's tasks, newest first.

        Args:
            limit: At most so many; None gives all.
            before: Only those with a lower id.
        """
        return self._value(calls.list_tasks(limit=limit, before=before))

    def get_task(self, task_id: int, *, events: str | None = None) -> Task:
        """One task with its `events`.

        Args:
            task_id: Id from `create_task`.
            events: `all` (the default), `none` or `tail:N`.

        Raises:
            NotFoundError: No such task, or it is someone else's.
        """
        return self._value(calls.get_task(task_id, events=events))

    def stream_task_updates(self, task_id: int, *, after: int = 0) -> Iterator[JsonObject]:
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
        """
        if after < 0:
            raise ValueError(f"after must be 0 or more; got {after}")
        return self._events(flows.stream(task_id, self._conditions, after=after))

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
        kind = None if content_type is None else _header_value("content_type", content_type)
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

    def get_health(self) -> JsonObject:
        """Whether the server is alive."""
        return self._value(calls.get_health())

    def get_ready(self) -> JsonObject:
        """The state of the server's parts and how to mend them; also returned while it is not ready."""
        return self._value(calls.get_ready())

    def get_info(self) -> JsonObject:
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

    # From calls to answers

    def _value(self, call: Call[Result]) -> Result:
        return cast(Result, value_of(self._run(flows.request(call, self._conditions))))

    def _response(self, call: Call[Any], *, is_streamed: bool) -> requests.Response:
        return cast(
            requests.Response, self._run(flows.request(call, self._conditions, is_streamed=is_streamed)).response
        )

    def _log_in(self, call: Call[Session]) -> Session:
        session = self._value(call)
        token = session.get("access_token") if isinstance(session, dict) else None
        if not isinstance(token, str):
            raise ProtocolError(f"{call.method} {call.path} answered without an access_token.")
        self.set_token(token)
        return session

    # The drivers: they do what a flow asks for

    def _run(self, flow: Flow[Result]) -> Result:
        opened: _OpenStream | None = None
        result: Any = None
        failure: Exception | None = None
        try:
            while True:
                try:
                    effect = flow.send(result) if failure is None else flow.throw(failure)
                except StopIteration as stop:
                    if opened is not None and opened.is_of(stop.value):
                        opened = None  # whoever called reads it, and closes it
                    return cast(Result, stop.value)
                result = failure = None
                match effect:
                    case Send():
                        if opened is not None:
                            opened.close()
                            opened = None
                        result = self._send(effect)
                        if isinstance(result, Answer) and effect.is_streamed:
                            opened = _OpenStream(result, timeout_seconds=self._read_timeout)
                    case Read():
                        assert opened is not None
                        result = opened.read()
                    case Sleep(seconds):
                        sleep(seconds)
                    case Do(work):
                        try:
                            result = work()
                        except Exception as error:  # it is the flow's, which may know what to do
                            failure = error
                    case Tell(function, arguments):
                        result = function(*arguments)
                    case _:
                        raise AssertionError(f"a call asks for no {effect}")
        finally:
            flow.close()
            if opened is not None:
                opened.close()

    def _events(self, flow: Flow[None]) -> Iterator[JsonObject]:
        opened: _OpenStream | None = None
        result: Answer | NetworkError | bytes | None = None
        try:
            while True:
                try:
                    effect = flow.send(result)
                except StopIteration:
                    return
                result = None
                match effect:
                    case Read():
                        assert opened is not None
                        result = opened.read()
                    case Emit(items):
                        yield from items
                    case Sleep(seconds):
                        sleep(seconds)
                    case Send():
                        if opened is not None:
                            opened.close()
                            opened = None
                        result = self._send(effect)
                        if isinstance(result, Answer) and effect.is_streamed:
                            opened = _OpenStream(result, timeout_seconds=self._stream_timeout)
        finally:
            flow.close()
            if opened is not None:
                opened.close()

    def _send(self, send: Send) -> Answer | NetworkError:
        call = send.call
        url = self._base_url + call.target
        headers = dict(call.headers)
        if self._language is not None:
            headers["Accept-Language"] = self._language
        read_timeout = self._stream_timeout if send.is_event_stream else self._read_timeout
        try:
            response = self._session().request(
                call.method,
                url,
                data=cast(Any, call.body),
                headers=headers,
                auth=BearerAuth(self._token),
                timeout=(self._connect_timeout, read_timeout),
                stream=send.is_streamed,
            )
            is_unread = send.is_streamed and 200 <= response.status_code < 300
            body = b"" if is_unread else response.content
        except (OSError, urllib3.exceptions.HTTPError) as error:
            failure = network_error(error, method=call.method, url=url, timeout_seconds=read_timeout)
            return _as_value(failure, cause=error)
        _check_redirects(call, response)
        return Answer(
            status=response.status_code,
            headers=response.headers,
            body=body or b"",
            method=call.method,
            url=url,
            response=response,
        )

    def _session(self) -> requests.Session:
        if self._given_session is not None:
            return self._given_session
        session = self._own_session
        if session is None or self._pid != os.getpid():  # after a fork, parent and child must share no connection
            session = self._own_session = TunedSession(self._base_url)
            self._pid = os.getpid()
        return session


class _OpenStream:
    """The unread body of an event stream."""

    def __init__(self, answer: Answer, *, timeout_seconds: float) -> None:
        self._answer = answer
        self._timeout_seconds = timeout_seconds
        self._chunks = _chunks_of(answer.response)

    def read(self) -> bytes | NetworkError:
        """The next bytes, as soon as some are there; `b""` at the clean end."""
        try:
            return next(self._chunks, b"")
        except (OSError, urllib3.exceptions.HTTPError) as error:
            method, url = self._answer.method, self._answer.url
            failure = network_error(error, method=method, url=url, timeout_seconds=self._timeout_seconds)
            if isinstance(failure, RequestTimeout) and _is_event_stream(self._answer):
                message = (
                    f"{method} {url}: neither an event nor a heartbeat came for {self._timeout_seconds:g} s. "
                    "If this server sends no heartbeats, raise stream_timeout."
                )
                failure = RequestTimeout(message, method=method, url=url)
            return _as_value(failure, cause=error)

    def is_of(self, answer: object) -> bool:
        """Whether it is the unread body of `answer`."""
        return self._answer is answer

    def close(self) -> None:
        """Close the connection, unless the body has been read to its end."""
        self._answer.response.close()


def _is_event_stream(answer: Answer) -> bool:
    return answer.headers.get("Content-Type", "").startswith("text/event-stream")


def _chunks_of(response: requests.Response) -> Iterator[bytes]:
    """The body's bytes as they come, without waiting until a chunk is full."""
    raw = response.raw
    if getattr(raw, "chunked", False):
        return cast(Iterator[bytes], response.iter_content(_STREAM_CHUNK_BYTES))  # one HTTP chunk at a time
    return iter(lambda: raw.read1(_STREAM_CHUNK_BYTES, decode_content=True), b"")


def _as_value(failure: BeRayException, *, cause: Exception) -> NetworkError:
    """A flow decides about a network failure; any other error is for the caller at once."""
    if not isinstance(failure, NetworkError):
        raise failure from cause
    failure.__cause__ = cause  # what `raise ... from` would do
    return failure


def _check_redirects(call: Call[Any], response: requests.Response) -> None:
    """A 301, 302 or 303 has turned the call into a GET: what was asked for has not been done."""
    if call.method not in ("GET", "HEAD") and any(step.status_code in (301, 302, 303) for step in response.history):
        raise ProtocolError(
            f"{call.method} {response.history[0].url} was redirected to {response.url}, which loses its body. "
            "Give base_url as the server finally has it (https?)."
        )


def _timeouts(timeout: float | tuple[float, float]) -> tuple[float, float]:
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return _positive("timeout", connect), _positive("timeout", read)


def _positive(name: str, seconds: float) -> float:
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ValueError(f"{name} must be a number of seconds above 0; got {seconds!r}")
    return float(seconds)


def _header_value(name: str, value: str) -> str:
    if not (isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip() and value):
        raise ValueError(f"{name} must be printable ASCII without spaces around it")  # the value may be a secret
    return value
