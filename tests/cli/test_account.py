"""`register`, `login`, `logout`, `whoami`, and which server is meant."""

import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, OnTerminal
from tests.support.fake_server import TOKEN, FakeServer

PASSWORD = "correct horse"


@pytest.fixture
def stranger(home: Path) -> CommandLine:
    """`beray` of somebody who is logged in nowhere."""
    return CommandLine(home, {})


@pytest.fixture
def stranger_on_terminal(stranger: CommandLine) -> Iterator[Callable[..., OnTerminal]]:
    started: list[OnTerminal] = []

    def start(*arguments: str) -> OnTerminal:
        started.append(stranger.on_terminal(*arguments))
        return started[-1]

    yield start
    for command in started:
        command.close()


def credentials(home: Path) -> Path:
    return home / "config" / "beray" / "credentials.toml"


def log_in(stranger: CommandLine, fake: FakeServer) -> None:
    arguments = ["login", "--server", fake.base_url, "--email", "ada@example.com", "--password-stdin"]
    assert stranger(*arguments, stdin=f"{PASSWORD}\n".encode()).status == 0


def test_login_is_remembered_in_a_file_of_ones_own(stranger: CommandLine, fake: FakeServer, home: Path) -> None:
    log_in(stranger, fake)

    kept = tomllib.loads(credentials(home).read_text())
    assert kept == {"server": fake.base_url, "servers": {fake.base_url: {"token": TOKEN, "email": "ada@example.com"}}}
    assert stat.S_IMODE(credentials(home).stat().st_mode) == 0o600
    assert stranger("whoami").out == "ada@example.com\n"
    assert stranger("ps").status == 0


def test_token_and_password_are_never_shown(stranger: CommandLine, fake: FakeServer) -> None:
    arguments = ["--debug", "login", "--server", fake.base_url, "--email", "a@b.example", "--password-stdin"]

    ended = stranger(*arguments, stdin=f"{PASSWORD}\n".encode())

    assert TOKEN not in ended.out + ended.err
    assert PASSWORD not in ended.out + ended.err


def test_wrong_password_is_status_4_and_keeps_nothing(stranger: CommandLine, fake: FakeServer, home: Path) -> None:
    ended = stranger(
        "login", "--server", fake.base_url, "--email", "ada@example.com", "--password-stdin", stdin=b"wrong\n"
    )

    assert ended.status == 4
    assert "beray register" in ended.err
    assert not credentials(home).exists()


def test_login_with_a_token_checks_it_first(stranger: CommandLine, fake: FakeServer, home: Path) -> None:
    bad = stranger("login", "--with-token", "--server", fake.base_url, stdin=b"nonsense\n")
    good = stranger("login", "--with-token", "--server", fake.base_url, stdin=f"{TOKEN}\n".encode())

    assert (bad.status, good.status) == (4, 0)
    assert tomllib.loads(credentials(home).read_text())["servers"][fake.base_url]["token"] == TOKEN


def test_registering_asks_for_address_code_and_password(
    stranger_on_terminal: Callable[..., OnTerminal], fake: FakeServer, home: Path
) -> None:
    terminal = stranger_on_terminal("register", "--server", fake.base_url)
    asked = "New password (at least 8 characters): "
    for told, question, answer in [
        ("", "E-mail: ", "new@example.com"),
        ("", "Code: ", "123456"),
        ("", asked, "short"),
        ("Too short", asked, PASSWORD),
        ("", "Once more: ", "another one"),
        ("They differ", asked, PASSWORD),
        ("", "Once more: ", PASSWORD),
    ]:
        terminal.read_until(told)
        terminal.read_until(question)  # what is typed before it is thrown away with the echo
        terminal.shown = ""
        terminal.raw = b""
        terminal.type(f"{answer}\n")

    assert terminal.end() == 0
    assert PASSWORD not in terminal.shown
    assert "POST /api/v1/auth/request-verification-code" in fake.requests
    assert tomllib.loads(credentials(home).read_text())["servers"][fake.base_url]["email"] == "new@example.com"


def test_scripts_register_without_questions(stranger: CommandLine, fake: FakeServer) -> None:
    arguments = ["register", "--server", fake.base_url, "--email", "new@example.com", "--password-stdin"]

    bad = stranger(*arguments, "--code", "000000", stdin=f"{PASSWORD}\n".encode())
    good = stranger(*arguments, "--code", "123456", stdin=f"{PASSWORD}\n".encode())

    assert (bad.status, good.status) == (6, 0)
    assert "without --code" in bad.err
    assert "POST /api/v1/auth/request-verification-code" not in fake.requests


def test_forgotten_password_is_reset_and_the_new_one_logs_in(
    stranger: CommandLine, fake: FakeServer, home: Path
) -> None:
    arguments = ["reset-password", "--server", fake.base_url, "--email", "ada@example.com", "--password-stdin"]

    bad = stranger(*arguments, "--code", "000000", stdin=b"another horse\n")
    good = stranger(*arguments, "--code", "123456", stdin=b"another horse\n")

    assert (bad.status, good.status) == (6, 0)
    assert fake.password == "another horse"
    assert "The password of ada@example.com is reset" in good.err
    assert "another horse" not in good.out + good.err
    assert tomllib.loads(credentials(home).read_text())["servers"][fake.base_url]["token"] == TOKEN


def test_resetting_a_password_asks_for_code_and_password(
    stranger_on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    terminal = stranger_on_terminal("reset-password", "--server", fake.base_url, "--email", "ada@example.com")
    for question, answer in [
        ("Code: ", "123456"),
        ("New password (at least 8 characters): ", "another horse"),
        ("Once more: ", "another horse"),
    ]:
        terminal.read_until(question)  # what is typed before it is thrown away with the echo
        terminal.type(f"{answer}\n")

    assert terminal.end() == 0
    assert "another horse" not in terminal.shown
    assert "POST /api/v1/auth/request-verification-code" in fake.requests


def test_logging_out_kills_the_token_and_forgets_it(stranger: CommandLine, fake: FakeServer, home: Path) -> None:
    log_in(stranger, fake)

    ended = stranger("logout")

    assert ended.status == 0
    assert "POST /api/v1/auth/logout" in fake.requests
    assert tomllib.loads(credentials(home).read_text()) == {}
    assert stranger("logout").err == "Nobody is logged in.\n"


def test_token_that_was_dead_already_is_forgotten_all_the_same(
    stranger: CommandLine, fake: FakeServer, home: Path
) -> None:
    log_in(stranger, fake)
    fake.refusals["POST /api/v1/auth/logout"] = (401, {"detail": "dead", "code": "not_authenticated"})

    assert stranger("logout").status == 0
    assert tomllib.loads(credentials(home).read_text()) == {}


def test_logging_out_of_a_server_that_is_gone_forgets_the_token_and_says_so(
    stranger: CommandLine, fake: FakeServer, home: Path
) -> None:
    log_in(stranger, fake)
    fake.is_down.set()

    ended = stranger("logout")

    assert ended.status == 0
    assert "stays good there until it expires" in ended.err
    assert tomllib.loads(credentials(home).read_text()) == {}


def test_question_that_nobody_answers_is_wrong_use(stranger: CommandLine, fake: FakeServer) -> None:
    ended = stranger("login", "--server", fake.base_url)

    assert ended.status == 2
    assert "Nobody answered: E-mail" in ended.err


def test_named_server_without_a_login_says_how_to_log_in(stranger: CommandLine, fake: FakeServer) -> None:
    ended = stranger("ps", "--server", fake.base_url)

    assert ended.status == 4
    assert ended.err.splitlines()[0] == f"✗ Not logged in to {fake.base_url}"
    assert f"beray login --server {fake.base_url}" in ended.err


def test_token_of_the_environment_wins_over_the_login(stranger: CommandLine, fake: FakeServer) -> None:
    log_in(stranger, fake)

    assert stranger("whoami", BERAY_TOKEN="another").status == 4


def test_server_option_wins_over_the_environment_and_may_stand_before_the_command(
    stranger: CommandLine, fake: FakeServer
) -> None:
    log_in(stranger, fake)

    for arguments in (["--server", fake.base_url, "whoami"], ["whoami", "--server", fake.base_url + "/"]):
        assert stranger(*arguments, BERAY_BASE_URL="http://127.0.0.1:9").status == 0


def test_token_alone_names_no_server(stranger: CommandLine) -> None:
    ended = stranger("ps", BERAY_TOKEN="x")

    assert ended.status == 2
    assert "BERAY_BASE_URL" in ended.err


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://[", "http://x:99999", "http://x:0"])
def test_what_is_no_url_is_said_to_be_none(stranger: CommandLine, url: str) -> None:
    ended = stranger("ps", "--server", url, BERAY_TOKEN="x")

    assert ended.status == 2
    assert "is not the URL of a server" in ended.err


def test_broken_credentials_file_is_named(stranger: CommandLine, home: Path) -> None:
    credentials(home).parent.mkdir(parents=True)
    credentials(home).write_text("not toml [")

    ended = stranger("ps")

    assert ended.status == 1
    assert str(credentials(home)) in ended.err


def test_token_that_no_header_can_carry_is_refused_without_being_shown(stranger: CommandLine, fake: FakeServer) -> None:
    ended = stranger("ps", "--server", fake.base_url, BERAY_TOKEN="tök en")

    assert ended.status == 2
    assert "tök" not in ended.err
