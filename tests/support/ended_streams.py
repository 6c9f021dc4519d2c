"""Hooks for schemathesis: a task is stopped before its stream is read, so that the stream has an end.

The stream of a task that is held goes on for an hour, as it should. What is checked is a whole one.
"""

import re
from typing import Any

import requests
import schemathesis

STREAM = re.compile(r"(/api/v1/tasks/[0-9]+)/stream")


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    stream = STREAM.fullmatch(case.formatted_path)
    if stream is not None and case.headers:
        url = f"{case.operation.base_url.rstrip('/')}{stream[1]}/stop"
        requests.post(url, headers={"Authorization": case.headers.get("Authorization", "")}, timeout=10)
