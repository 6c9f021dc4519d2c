"""`beray` that says on standard error which modules are loaded when its server gets so far.

python -m tests.support.told_imports serve ...
"""

import json
import sys
from typing import Any

MARK = "loaded when "


def main() -> int:
    """Run the command line; `serve` alone comes by what is watched here."""
    from beray.cli.main import main as run
    from beray.server.app import App
    from beray.server.readiness import Readiness

    begin_work, note = App.begin_work, Readiness.set

    async def told_begin_work(app: App) -> None:
        tell("health answers")
        await begin_work(app)

    def told_note(readiness: Readiness, name: str, state: Any, hint: str | None = None) -> None:
        note(readiness, name, state, hint)
        if readiness.status == "ready":
            tell("ready")

    App.begin_work, Readiness.set = told_begin_work, told_note  # type: ignore[method-assign]  # only told, not changed
    return run()


def tell(stage: str) -> None:
    print(f"{MARK}{stage}: {json.dumps(sorted(sys.modules))}", file=sys.stderr, flush=True)


def loaded(log: str, stage: str) -> set[str]:
    """The modules that a log tells of."""
    begin = f"{MARK}{stage}: "
    line = next(line for line in log.splitlines() if line.startswith(begin))
    return set(json.loads(line.removeprefix(begin)))


if __name__ == "__main__":
    sys.exit(main())
