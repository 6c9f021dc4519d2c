"""A remote file without a network: drives a flow, and answers as the test says, cut wherever it wants."""

import base64
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from requests.structures import CaseInsensitiveDict

from beray.exceptions import ConnectionFailed, NetworkError
from beray.protocol.calls import Call
from beray.protocol.effects import Conditions, Do, Flow, Read, Send, Sleep
from beray.protocol.responses import Answer
from beray.protocol.retry import RetryPolicy

Result = TypeVar("Result")

DROPPED = -1  # in `cuts`: the connection fails before any answer


@dataclass
class ScriptedRemote:
    """One file, and how it is served.

    Attributes:
        content: Its bytes.
        etag: Its tag; None: the server gives none.
        cuts: For each connection in turn, after how many bytes it is cut; None: not at all.
        changes: Before the n-th connection (from 0) the file becomes this.
        piece: Bytes a read gives.
    """

    content: bytes
    etag: str | None = '"e"'
    has_digest: bool = True
    has_length: bool = True
    honours_range: bool = True
    cuts: "deque[int | None]" = field(default_factory=deque)
    changes: dict[int, "ScriptedRemote"] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    damage: "deque[bytes]" = field(default_factory=deque)
    piece: int = 7
    calls: list[Call[Any]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def drive(self, flow: Flow[Result]) -> Result:
        """Do what the flow asks for, to its end."""
        result: Any = None
        failure: Exception | None = None
        reading: Iterator[bytes | NetworkError] = iter(())
        try:
            while True:
                try:
                    effect = flow.send(result) if failure is None else flow.throw(failure)
                except StopIteration as stop:
                    return stop.value
                result = failure = None
                match effect:
                    case Send(call):
                        result = self._answer(call)
                        if isinstance(result, Answer):
                            reading = self._pieces(result)
                    case Read():
                        result = next(reading, b"")
                    case Sleep(seconds):
                        self.waits.append(seconds)
                    case Do(work):
                        try:
                            result = work()
                        except Exception as error:
                            failure = error
                    case _:
                        raise AssertionError(f"no driver for {effect}")
        finally:
            flow.close()

    def _answer(self, call: Call[Any]) -> Answer | NetworkError:
        number = len(self.calls)
        self.calls.append(call)
        for name in ("content", "etag", "honours_range") if number in self.changes else ():
            setattr(self, name, getattr(self.changes[number], name))
        if number in self.answers:
            return self.answers[number]
        if self.cuts and self.cuts[0] == DROPPED:
            self.cuts.popleft()
            return ConnectionFailed("dropped")
        return self._file_answer(call)

    def _file_answer(self, call: Call[Any]) -> Answer:
        headers: dict[str, str] = {} if self.etag is None else {"ETag": self.etag}
        start, status = 0, 200
        if self.honours_range and "Range" in call.headers and call.headers["If-Range"] == self.etag:
            start, status = int(call.headers["Range"].removeprefix("bytes=").removesuffix("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            if start >= len(self.content):
                return answer_of(416, {"Content-Range": f"bytes */{len(self.content)}"}, method=call.method)
        if self.has_digest and "Want-Repr-Digest" in call.headers:
            digest = base64.b64encode(hashlib.sha256(self.content).digest()).decode()
            headers["Repr-Digest"] = f"sha-256=:{digest}:"
        if self.has_length:
            headers["Content-Length"] = str(len(self.content) - start)
        body = b"" if call.method == "HEAD" else self.content[start:]
        if body and self.damage:
            body = self.damage.popleft()[start:]
        return answer_of(status, headers, body, method=call.method)

    def _pieces(self, answer: Answer) -> Iterator[bytes | NetworkError]:
        body = answer.response
        cut = self.cuts.popleft() if self.cuts and answer.method != "HEAD" else None
        sent = body if cut is None else body[:cut]
        for at in range(0, len(sent), self.piece):
            yield sent[at : at + self.piece]
        if cut is not None:
            yield ConnectionFailed("cut")


def answer_of(status: int, headers: dict[str, str], body: bytes = b"", *, method: str = "GET") -> Answer:
    """An answer whose body is read piece by piece if it is a success."""
    text = b"{}" if status >= 300 else b""
    return Answer(status=status, headers=CaseInsensitiveDict(headers), body=text, method=method, response=body)


def conditions(*, max_retries: int = 2) -> Conditions:
    """What a client's flows share, without chance."""
    return Conditions(policy=RetryPolicy(max_retries=max_retries), clock=lambda: 0.0, random=lambda: 0.5)
