"""Hooks for schemathesis, for what is right and would fail, last for ever, leave this machine, or end its own reach.

Every third task is held, where its request says nothing about that: by rules a task is over within milliseconds, and
then neither a start nor a stop can be right.

A task is stopped before its stream is read, so that what is checked is a whole stream: that of a held one goes on for
an hour. And chains of calls use no Idempotency-Key twice: it gives the first answer again, with a task deleted since.
A webhook's URL that would be taken is turned into one of this machine, where nobody listens. And nobody is made an
ordinary user, for the only admin there was then could ask for nothing more of what admins may.
"""

import itertools
import re
from typing import Any

import requests
import schemathesis

from beray.server.webhooks.reach import Reach

KEY = "idempotency-key"
SHORT = 200  # characters; the border of what is refused stays as it was

_numbers = itertools.count(1)
_tasks = itertools.count(1)

NOBODY = "https://nobody.localhost:65535/"  # of the documented form, and no other machine's (RFC 6761, 6.3)

STREAM = re.compile(r"(/api/v1/tasks/[0-9]+)/stream")


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    stream = STREAM.fullmatch(case.formatted_path)
    if stream is not None and case.headers:
        url = f"{case.operation.base_url.rstrip('/')}{stream[1]}/stop"
        requests.post(url, headers={"Authorization": case.headers.get("Authorization", "")}, timeout=10)
    makes_task = case.method == "POST" and case.formatted_path.rstrip("/") == "/api/v1/tasks"
    if makes_task and isinstance(case.body, dict) and "hold" not in case.body and next(_tasks) % 3 == 0:
        case.body["hold"] = True
    key = (case.headers or {}).get(KEY, "")
    if 0 < len(key) < SHORT:
        case.headers[KEY] = f"{key}{next(_numbers)}"
    if isinstance(case.body, dict):
        if case.body.get("is_admin") is False:
            case.body["is_admin"] = True
        for name in {"url", "webhook_url"} & case.body.keys():
            if isinstance(case.body[name], str) and Reach().takes(case.body[name]):
                case.body[name] = NOBODY
