"""Agno's AgentOS as its documentation sets it up: an agent with the shell tool, an SQLite database, an HTTP server.

    python -P agno_server.py FOLDER MODEL_URL AGENT [detached]

Runs in an environment of its own (`agno.py`), imports nothing of BeRay, prints its port, ends with its standard input.
"""

import os
import socket
import sys
import threading
from pathlib import Path

import uvicorn
from agno.agent import Agent  # type: ignore[import-not-found]  # lives in the other environment
from agno.db.sqlite import SqliteDb  # type: ignore[import-not-found]  # lives in the other environment
from agno.models.openai.like import OpenAILike  # type: ignore[import-not-found]  # lives in the other environment
from agno.os import AgentOS  # type: ignore[import-not-found]  # lives in the other environment
from agno.tools.shell import ShellTools  # type: ignore[import-not-found]  # lives in the other environment


def main() -> None:
    """Serve until standard input ends."""
    folder, model_url, agent_id = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    is_detached = "detached" in sys.argv[4:]
    database = SqliteDb(db_file=str(folder / "agno.db"))
    agent = Agent(
        id=agent_id,
        model=OpenAILike(id="scripted", base_url=model_url, api_key="key"),
        tools=[ShellTools(base_dir=folder)],
        db=database,
        checkpoint="tool-batch" if is_detached else None,
        telemetry=False,
    )
    app = AgentOS(agents=[agent], db=database, telemetry=False).get_app()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))

    def end_with_input() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=end_with_input, daemon=True).start()
    os.write(1, f"{listener.getsockname()[1]}\n".encode())
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
