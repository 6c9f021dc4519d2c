"""An MCP server over standard streams, in the standard library alone: what a command's sandbox can run.

Its program is given as text (`PROGRAM`), for nothing of this repository is seen in a sandbox. What its tools do is in
their names; words given as arguments change how it begins: `silent` never answers, `dies` ends at once, `noisy` prints
what is no message before each one, `odd_tools` offers tools that no model can be given.
"""

import json
from pathlib import Path
from typing import Any

PROGRAM = r"""
import json, os, sys, threading

MODES = set(sys.argv[1:])
OBJECT = {"type": "object", "properties": {}}
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
NAMES = ["echo", "write", "env", "fail", "error", "hang", "die", "huge", "rubbish", "wrong_id", "big", "picture",
         "structured", "count", "crash_late", "whoami", "ask", "talk", "dot",
         "half", "deep", "cut"]
TOOLS = [{"name": name, "description": name + " it",
          "inputSchema": TEXT if name in ("echo", "write", "env") else OBJECT} for name in NAMES]
if "odd_tools" in MODES:
    TOOLS = [
        {"name": "a.b/c", "inputSchema": OBJECT},
        {"name": "a_b_c", "inputSchema": OBJECT},
        {"name": "x" * 64, "inputSchema": OBJECT},
        {"name": "large", "inputSchema": {"type": "object", "title": "y" * 70000}},
        {"name": "told", "inputSchema": OBJECT, "description": "z" * 3000},
    ]
calls = 0


def send(message):
    if "noisy" in MODES:
        sys.stdout.write("Listening on port 1234\n{\"jsonrpc\": \"1.0\"}\n[1, 2\n\n")
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def texts(*words):
    return {"content": [{"type": "text", "text": word} for word in words], "isError": False}


def call(name, args):
    global calls
    calls += 1
    if name == "echo":
        return texts(args["text"])
    if name == "write":
        with open("made.txt", "w") as file:
            file.write(args["text"])
        return texts("written")
    if name == "env":
        return texts(os.environ.get(args["text"], "(unset)"))
    if name == "fail":
        return {**texts("no such city"), "isError": True}
    if name == "hang":
        threading.Event().wait(1000)  # says nothing; ends by itself if nobody ends it
    if name == "die":
        sys.stderr.write("dying, and " + os.environ.get("SECRET", "-") + "\n")
        sys.stderr.flush()
        os._exit(3)
    if name == "huge":
        return texts("h" * 5_000_000)
    if name == "big":
        return texts("b" * 50_000)
    if name == "picture":
        return {"content": [{"type": "image", "data": "aGVsbG8=", "mimeType": "image/png"}]}
    if name == "dot":
        return {"content": [{"type": "image", "data": os.environ["DOT"], "mimeType": "image/png"}]}
    if name == "structured":
        return {"content": [], "structuredContent": {"degrees": 21}}
    if name == "count":
        return texts(str(calls))
    if name in ("ask", "talk"):  # far more than anybody needs, and never reads an answer
        for number in range(50_000):
            asked = {"id": "s%d" % number, "method": "ping"} if name == "ask" else {"method": "notifications/message",
                    "params": {"level": "info", "data": "x"}}
            sys.stdout.write(json.dumps({"jsonrpc": "2.0", **asked}) + "\n")
        sys.stdout.flush()
        return texts("asked")
    if name == "whoami":
        return texts(str(os.getpid()))


def answer(message):
    method, params, number = message["method"], message.get("params") or {}, message.get("id")
    if number is None:
        return
    if method == "initialize":
        version = params["protocolVersion"]
        server = {"name": "x", "version": "1"}
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}
    elif method == "tools/list":
        result = {"tools": TOOLS}
    elif method == "tools/call":
        name = params["name"]
        if name == "error":
            send({"id": number, "error": {"code": -32602, "message": "text is missing"}})
            return
        if name == "rubbish":
            print("{\"jsonrpc\": \"2.0\", \"id\": %d, \"result\": {\"content\": 7}}" % number, flush=True)
            return
        if name in ("half", "deep", "cut"):
            told = {"half": '"\\ud83d"', "deep": "[" * 100000 + "]" * 100000, "cut": '"no end'}[name]
            print('{"jsonrpc": "2.0", "id": %d, "result": {"content": [], "structuredContent": {"x": %s}}}'
                  % (number, told), flush=True)
            return
        if name == "wrong_id":
            send({"id": number + 1000, "result": texts("for somebody else")})
            return
        result = call(name, params.get("arguments") or {})
        send({"id": number, "result": result})
        if name == "crash_late":
            os._exit(1)
        return
    else:
        send({"id": number, "error": {"code": -32601, "message": "unknown"}})
        return
    send({"id": number, "result": result})


if "dies" in MODES:
    sys.exit(1)
for line in sys.stdin:
    if "silent" not in MODES:
        answer(json.loads(line))
if "leaves_a_note" in MODES:
    open("left.txt", "w").write("in order")
"""


def entry(*modes: str, python: str = "python3", **more: Any) -> dict[str, Any]:
    """The server's entry in a file of servers."""
    return {"command": python, "args": ["-I", "-c", PROGRAM, *modes], **more}


def write_config(path: Path, **servers: Any) -> Path:
    """A file that names these servers."""
    path.write_text(json.dumps({"mcpServers": servers}))
    return path
