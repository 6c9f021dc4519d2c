"""The operator's file of MCP servers: what it may say, and what is said of mistakes."""

import json
import re
import subprocess
import sys

import pytest

from beray.server.agent.mcp import source
from beray.server.agent.mcp.config import Command, Endpoint, McpServer, read_mcp_config
from beray.server.agent.mcp.source import open_mcp_sources
from beray.server.settings import SettingError, Settings

FULL = {
    "weather": {
        "command": "/usr/bin/weather",
        "args": ["--city", "${CITY}"],
        "env": {"KEY": "${WEATHER_KEY}", "MODE": "fast"},
        "default": True,
        "tools": ["now"],
        "timeout_seconds": 10,
        "description": "the weather",
    },
    "issues": {"type": "http", "url": "https://mcp.example.com/v1", "headers": {"Authorization": "Bearer ${TOKEN}"}},
}
ENVIRON = {"WEATHER_KEY": "key-1", "TOKEN": "token-2", "CITY": "never read"}


@pytest.fixture
def write(tmp_path):
    def write(body):
        path = tmp_path / "mcp.json"
        path.write_text(body if isinstance(body, str) else json.dumps(body))
        return path

    return write


def read(path, environ=ENVIRON, taken=("shell",)):
    return read_mcp_config(path, environ, taken=taken)


def test_a_whole_file_is_read_by_name(write):
    assert read(write({"mcpServers": FULL})) == (
        McpServer("issues", Endpoint("https://mcp.example.com/v1", {"Authorization": "Bearer token-2"})),
        McpServer(
            "weather",
            Command(("/usr/bin/weather", "--city", "${CITY}"), {"KEY": "key-1", "MODE": "fast"}),
            tools=frozenset({"now"}),
            timeout_seconds=10,
            is_default=True,
            description="the weather",
        ),
    )


def test_secrets_are_in_no_representation(write):
    shown = repr(read(write({"mcpServers": FULL})))

    assert "key-1" not in shown
    assert "token-2" not in shown


def test_a_process_that_runs_no_tasks_needs_no_secrets(write):
    servers = read(write({"mcpServers": FULL}), environ=None)

    assert [server.name for server in servers] == ["issues", "weather"]
    assert servers[0].target == Endpoint("https://mcp.example.com/v1")


@pytest.mark.parametrize(
    "url",
    [
        "https://mcp.example.com",
        "http://localhost:8080/mcp",
        "http://127.0.0.1:9/mcp",
        "http://[::1]:9/mcp",
        "http://10.1.2.3/mcp",
        "http://mcp-server:8080/mcp",
    ],
)
def test_https_goes_anywhere_and_http_only_where_no_stranger_answers(write, url):
    [server] = read(write({"mcpServers": {"x": {"url": url}}}))

    assert server.target == Endpoint(url)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "it is no JSON"),
        ("[]", 'it must be an object with "mcpServers"'),
        ({"mcpServers": []}, 'it must be an object with "mcpServers"'),
        ({"mcpServers": {}, "servers": {}}, "the file has the unknown key 'servers'; known: mcpServers"),
        ({"mcpServers": {f"s{n}": {"command": "x"} for n in range(33)}}, "33 servers are more than the 32"),
        ({"mcpServers": {"a": {"command": "x"}, "a_b": {"command": "x"}}}, "'a_b' begins like a tool of 'a'"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_a_file_of_another_form_is_refused(write, body, said):
    with pytest.raises(SettingError, match=re.escape(said)) as error:
        read(write(body))

    assert str(error.value).startswith("BERAY_MCP_CONFIG='")


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ("Weather", {"command": "x"}, "'Weather' can't be a server's name"),
        ("x" * 33, {"command": "x"}, "can't be a server's name"),
        ("shell", {"command": "x"}, "'shell' is the name of a tool already"),
        ("x", [], "server 'x': it must be an object"),
        ("x", {}, 'server \'x\': it needs either "command" (a program) or "url" (an HTTP server)'),
        ("x", {"command": "y", "url": "https://z.example"}, "it needs either"),
        ("x", {"command": "y", "headers": {}}, "it has the unknown key 'headers'; known: command, args, env, default"),
        ("x", {"command": ""}, '"command" is empty'),
        ("x", {"command": "a\0b"}, '"command" must be a text without NUL'),
        ("x", {"command": "y", "args": "z"}, '"args" must be a list of texts'),
        ("x", {"command": "y", "env": {"A-B": "1"}}, "'A-B' can't be an environment variable"),
        ("x", {"command": "y", "env": {"A": 1}}, '"env.A" must be a text'),
        ("x", {"command": "y", "env": {"A": "${NOPE}"}}, '"env.A" names ${NOPE}, which is not in the server\'s'),
        ("x", {"command": "y", "tools": "all"}, '"tools" must be a list of texts'),
        ("x", {"command": "y", "default": "yes"}, '"default" must be true or false'),
        ("x", {"command": "y", "timeout_seconds": 0}, '"timeout_seconds" must be a whole number from 1 to 3600'),
        ("x", {"command": "y", "timeout_seconds": True}, '"timeout_seconds" must be a whole number'),
        ("x", {"command": "y", "description": "a\nb"}, '"description" must be one line'),
        ("x", {"url": "ftp://z.example"}, "is not of the form https://host/path"),
        ("x", {"url": "https://me:secret-3@z.example"}, "'https://***@z.example' is not of the form"),
        ("x", {"url": "https://[::1"}, "is no URL"),
        ("x", {"url": "http://mcp.example.com/"}, "would send everything in clear text; use https"),
        ("x", {"url": "http://8.8.8.8/"}, "would send everything in clear text; use https"),
        ("x", {"url": "https://z.example", "headers": {"Host": "y"}}, "'Host' can't be set"),
        ("x", {"url": "https://z.example", "headers": {"A": "b\r\nC: d"}}, "the value of 'A' holds characters"),
    ],
)
def test_a_wrong_entry_is_refused_with_its_name(write, name, entry, said):
    with pytest.raises(SettingError, match=re.escape(said)) as error:
        read(write({"mcpServers": {name: entry}}))

    assert "secret-3" not in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingError, match="it can't be read \\(No such file or directory\\)"):
        read(tmp_path / "none.json")


def test_without_the_extra_the_start_fails_and_says_how_to_get_it(write, monkeypatch):
    monkeypatch.setattr(source, "find_spec", lambda name: None)
    path = write({"mcpServers": FULL})

    with pytest.raises(SettingError, match=re.escape("pip install 'beray[mcp]'")):
        open_mcp_sources(Settings(mcp_config=path), ENVIRON, taken=())

    assert len(open_mcp_sources(Settings(mcp_config=path, role="api"), {}, taken=())) == 2


def test_what_speaks_the_protocol_is_not_loaded_at_start():
    """It takes half a second, and most runs need none of it."""
    program = "import sys, beray.server.app; print({'mcp', 'httpx2', 'pydantic_ai'} & set(sys.modules))"

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert run.stdout == "set()\n"


def test_without_the_setting_there_are_no_servers():
    assert open_mcp_sources(Settings(), {}, taken=()) == ()


def test_sources_say_what_they_are(write):
    issues, weather = open_mcp_sources(Settings(mcp_config=write({"mcpServers": FULL})), ENVIRON, taken=())

    assert (weather.name, weather.description, weather.is_default) == ("weather", "the weather", True)
    assert issues.description == "MCP 服务器的工具，通过 HTTP 连接"
    assert not issues.is_default
