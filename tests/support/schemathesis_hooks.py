"""Hooks for schemathesis, for two things that are right and would fail or last for ever.

A task is stopped before its stream is read, so that what is checked is a whole stream: that of a held one goes on for
an hour. And chains of calls use no Idempotency-Key twice: it gives the first answer again, with a task deleted since.
"""

import itertools
import re
from typing import Any

import requests
import schemathesis

KEY = "idempotency-key"
SHORT = 200  # characters; the border of what is refused stays as it was

_numbers = itertools.count(1)

STREAM = re.compile(r"(/api/v1/tasks/[0-9]+)/stream")


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    stream = STREAM.fullmatch(case.formatted_path)
    if stream is not None and case.headers:
        url = f"{case.operation.base_url.rstrip('/')}{stream[1]}/stop"
        requests.post(url, headers={"Authorization": case.headers.get("Authorization", "")}, timeout=10)
    key = (case.headers or {}).get(KEY, "")
    if 0 < len(key) < SHORT:
        case.headers[KEY] = f"{key}{next(_numbers)}"
