"""The file with the logins."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.credentials import (
    Credentials,
    CredentialsError,
    Login,
    credentials_path,
    read_credentials,
    write_credentials,
)

ADA = Login("token-a", "ada@example.com")
BOB = Login("token-b", "bob@example.com")


def test_missing_file_is_nobody_logged_in(tmp_path: Path) -> None:
    assert read_credentials(tmp_path / "none.toml") == Credentials(None, {})


def test_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "beray" / "credentials.toml"

    write_credentials(path, Credentials("local", {"local": ADA}))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["credentials.toml"]


def test_file_that_was_open_to_others_is_closed_by_the_next_login(tmp_path: Path) -> None:
    path = tmp_path / "credentials.toml"
    path.write_text("")
    path.chmod(0o644)

    write_credentials(path, Credentials(None, {}))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(st.dictionaries(names, st.builds(Login, names, names), max_size=4), st.none() | names)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, logins: dict[str, Login], server: str | None
) -> None:
    path = tmp_path_factory.mktemp("credentials") / "credentials.toml"
    credentials = Credentials(server, logins)

    write_credentials(path, credentials)

    assert read_credentials(path) == credentials


@pytest.mark.parametrize("content", ["not toml [", "servers = 3", "[servers.x]\ntoken = 'only'", "\xff"])
def test_broken_file_is_named_in_the_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.toml"
    path.write_bytes(content.encode("latin-1"))

    with pytest.raises(CredentialsError, match=r"credentials\.toml"):
        read_credentials(path)


def test_last_login_is_current_and_logging_out_there_leaves_the_others() -> None:
    both = Credentials(None, {}).added("a", ADA).added("b", BOB)

    assert both.server == "b"
    assert both.removed("b") == Credentials(None, {"a": ADA})
    assert both.removed("a") == Credentials("b", {"b": BOB})


def test_path_follows_the_configuration_folder() -> None:
    assert credentials_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/beray/credentials.toml")
    assert credentials_path({}) == Path.home() / ".config/beray/credentials.toml"
