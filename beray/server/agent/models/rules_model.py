"""Rules mode as a model: plays a goal's steps through the same loop, tools and events as an AI model would use."""

import json
import shlex
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest, ToolReturnPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, DeltaToolCalls, FunctionModel

from beray.protocol.types import TaskError
from beray.server.agent.models.choice import RULES
from beray.server.agent.models.rules import (
    AppendFile,
    DeleteFile,
    ListFiles,
    PrintScript,
    ReadFile,
    RunCode,
    Step,
    WriteFile,
    parse_goal,
    script_name,
    script_source,
)
from beray.server.messages import Language, text

SHOWN_OUTPUT_CHARACTERS = 4000


class RulesFailed(Exception):
    """Rules mode can't do, or could not finish, the goal."""

    def __init__(self, error: TaskError) -> None:
        super().__init__(error["message"])
        self.error = error


@dataclass(frozen=True)
class Call:
    """One tool call of the plan, and whether its output belongs into the final text."""

    tool: str
    args: dict[str, Any]
    is_shown: bool = True


def plan_calls(steps: list[Step]) -> list[Call]:
    """The tool calls that carry out `steps`, in order."""
    return [call for step in steps for call in _calls(step)]


def _calls(step: Step) -> list[Call]:
    match step:
        case PrintScript(language):
            name = script_name(language)
            return [
                Call("write_file", {"path": name, "content": script_source(step)}, is_shown=False),
                Call("shell", {"command": f"{language} {name}"}),
            ]
        case WriteFile(path, content):
            return [Call("write_file", {"path": path, "content": content}, is_shown=False)]
        case AppendFile(path, content):
            command = f"printf %s {shlex.quote(content)} >> {shlex.quote(path)}"
            return [Call("shell", {"command": command}, is_shown=False)]
        case ReadFile(path):
            return [Call("read_file", {"path": path})]
        case ListFiles(path):
            return [Call("list_files", {"path": path})]
        case DeleteFile(path):
            return [Call("shell", {"command": f"rm -- {shlex.quote(path)}"}, is_shown=False)]
        case RunCode("python", code):
            return [Call("python", {"code": code})]
        case RunCode(_, code):
            return [Call("shell", {"command": code})]


def build_rules_model(language: Language) -> FunctionModel:
    """The model that works by fixed rules, speaking `language`."""
    return FunctionModel(stream_function=_stream(language), model_name=RULES)


def _stream(language: Language) -> Callable[[list[ModelMessage], AgentInfo], AsyncIterator[str | DeltaToolCalls]]:
    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str | DeltaToolCalls]:
        steps = parse_goal(_goal(messages))
        if steps is None:
            raise RulesFailed(unsupported(language))
        calls = plan_calls(steps)
        offered = {tool.name for tool in info.function_tools}
        missing = sorted({call.tool for call in calls} - offered)
        if missing:
            raise RulesFailed(_error("rules_tools_missing", language, tools=", ".join(missing)))
        returns = _returns(messages)
        if returns and not _is_ok(returns[-1]):
            raise RulesFailed(_step_failed(calls, returns, language))
        if len(returns) < len(calls):
            call = calls[len(returns)]
            yield {0: DeltaToolCall(name=call.tool, json_args=json.dumps(call.args))}
        else:
            yield _final_text(steps, calls, returns, language)

    return stream


def unsupported(language: Language) -> TaskError:
    """The error for a goal that fixed rules don't understand."""
    return _error("rules_unsupported", language)


def _error(code: str, language: Language, **params: object) -> TaskError:
    return {
        "code": code,
        "message": text(code, language, **params),
        "hint": text("rules_hint", language),
        "retryable": False,
    }


def _goal(messages: list[ModelMessage]) -> str:
    for part in messages[0].parts:
        if isinstance(part, UserPromptPart) and isinstance(part.content, str):
            return part.content
    return ""


def _returns(messages: list[ModelMessage]) -> list[ToolReturnPart]:
    """Results of the calls made so far, in order."""
    requests = [message for message in messages if isinstance(message, ModelRequest)]
    return [part for request in requests for part in request.parts if isinstance(part, ToolReturnPart)]


def _is_ok(returned: ToolReturnPart) -> bool:
    return isinstance(returned.metadata, dict) and bool(returned.metadata.get("ok"))


def _step_failed(calls: list[Call], returns: list[ToolReturnPart], language: Language) -> TaskError:
    number = len(returns)
    metadata = returns[-1].metadata if isinstance(returns[-1].metadata, dict) else {}
    exit_code = metadata.get("exit_code")
    reason = str(returns[-1].content).partition("\n")[0] if exit_code is None else f"exit code {exit_code}"
    error = _error(
        "rules_step_failed", language, number=number, total=len(calls), tool=calls[number - 1].tool, reason=reason
    )
    error["hint"] = text("rules_step_hint", language)
    return error


def _final_text(steps: list[Step], calls: list[Call], returns: list[ToolReturnPart], language: Language) -> str:
    parts = [text("rules_done", language, count=len(steps))]
    parts += [
        text("rules_script", language, name=script_name(step.language))
        for step in steps
        if isinstance(step, PrintScript)
    ]
    parts += [
        _shown(call, str(returned.content)) for call, returned in zip(calls, returns, strict=True) if call.is_shown
    ]
    return "\n\n".join(parts)


def _shown(call: Call, content: str) -> str:
    """A call's output as a fenced block, cut if it is long."""
    output = content.partition("\n")[2] if call.tool in {"shell", "python"} else content
    if len(output) > SHOWN_OUTPUT_CHARACTERS:
        output = output[:SHOWN_OUTPUT_CHARACTERS] + " …"
    longest = max((len(run) for run in output.split("\n") if set(run.strip()) == {"`"}), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{output.rstrip(chr(10))}\n{fence}"
