"""The python tool: code run by the sandbox's own interpreter."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.process import PYTHON_ENV, command_answer, run_process
from beray.server.agent.tools.shell import DEFAULT_TIMEOUT_SECONDS, Timeout
from beray.server.sandbox.base import Spec


def build_python(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run; the run must have an interpreter."""

    async def python(code: str, timeout: Timeout = DEFAULT_TIMEOUT_SECONDS) -> Answer:  # noqa: ASYNC109 - the sandbox enforces it
        """Run Python code and return its exit code and output; print what you want to see.

        Each call is a new process in the shell's current folder: variables are not kept, files are.

        Args:
            code: A whole program.
            timeout: Seconds after which it is killed, 1 to 600.
        """
        run = box.run
        if run.python is None:
            raise ToolError("There is no Python interpreter in the sandbox. Use the shell tool.")
        spec = Spec(
            argv=[run.python, "-"],
            work_dir=run.work_dir.path,
            cwd=box.progress.cwd,
            env={**PYTHON_ENV, **box.progress.env},
            uid=run.uid,
            stdin=code.encode(),
            limits=replace(run.sandbox_limits, wall_seconds=timeout),
        )
        finished = await run_process(box, spec)
        return command_answer(box, finished, timeout_seconds=timeout)

    return python
