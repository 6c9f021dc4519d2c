"""A driver without a network: it answers what flows ask for from a script, and remembers it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from beray.exceptions import ConnectionFailed, NetworkError
from beray.protocol.effects import Conditions, Do, Effect, Emit, Flow, Read, Renew, Send, Sleep, Tell
from beray.protocol.responses import Answer
from beray.protocol.retry import RetryPolicy
from beray.protocol.sse import encode_event

CUT = ConnectionFailed("cut")
NEVER_SENT = ConnectionFailed("refused", was_sent=False)


@dataclass
class Stream:
    """A stream's answer: its reads, then what ends it (None: cleanly)."""

    reads: Sequence[bytes] = ()
    end: NetworkError | None = None
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})
    status: int = 200


@dataclass
class Driver:
    """Answers effects from `script`, one entry a request, and remembers them."""

    script: list[Answer | NetworkError | Stream]
    sent: list[Send] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    emitted: list[dict[str, Any]] = field(default_factory=list)
    renewed: list[str | None] = field(default_factory=list)
    """The tokens in whose place another was asked for."""
    has_another_token: bool = False

    _reads: list[bytes | NetworkError] = field(default_factory=list)

    def run(self, flow: Flow[Any]) -> Any:
        try:
            effect = next(flow)
            while True:
                try:
                    result = self._do(effect)
                except BaseException as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(result)
        except StopIteration as stop:
            assert not self.script, "the flow ended before the script"
            return stop.value

    def _do(self, effect: Effect) -> Any:
        match effect:
            case Send():
                self.sent.append(effect)
                return self._answer()
            case Read():
                return self._reads.pop(0)
            case Sleep(seconds):
                self.slept.append(seconds)
            case Emit(items):
                self.emitted.extend(items)
            case Do(work):
                return work()
            case Tell(function, arguments):
                return function(*arguments)
            case Renew(token):
                self.renewed.append(token)
                return self.has_another_token
        return None

    def _answer(self) -> Answer | NetworkError:
        result = self.script.pop(0)
        if not isinstance(result, Stream):
            return result
        self._reads = [*result.reads, result.end or b""]
        return Answer(status=result.status, headers=result.headers)

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.emitted]

    @property
    def resumed_after(self) -> list[str | None]:
        return [send.call.headers.get("Last-Event-ID") for send in self.sent if send.is_event_stream]


def conditions(*, max_retries: int = 2, **more: Any) -> Conditions:
    return Conditions(policy=RetryPolicy(max_retries=max_retries), random=lambda: 1.0, **{"clock": lambda: 0.0, **more})


def answer(status: int = 200, content: object = None, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=json.dumps(content).encode())


def frame(seq: int, type: str = "text.delta", **fields: Any) -> bytes:
    return encode_event(seq, type, json.dumps({"seq": seq, "type": type, **fields}).encode())


def frames(first: int, last: int) -> bytes:
    return b"".join(frame(seq) for seq in range(first, last + 1))
