"""Tools of MCP servers (Model Context Protocol) that the operator names in a file.

A server that is a command runs in the sandbox of the task it serves, like any command of the agent's: same user, same
limits, no network unless hosts are allowed. One that is a URL is connected to from here. Either lives from the first
turn of a run in this process to the run's end, so that no two tasks share one; what it offers is asked once.

What a server says is not trusted: not its lines (length, JSON, ids), not its tools (number, size, names), not its
results (size, kind). It may be slow, stuck, dead or malicious; a run goes on without it.

`config.py` and `source.py` are imported at start and know no library; the rest is loaded when a run needs it.
"""
