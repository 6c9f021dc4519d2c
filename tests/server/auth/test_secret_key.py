import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from beray.server.auth.secret_key import load_secret_key
from beray.server.settings import SettingError, Settings


def test_key_is_made_once_and_only_the_owner_reads_it(tmp_path):
    settings = Settings(data_dir=tmp_path / "data")

    key = load_secret_key(settings)

    assert len(key) >= 32
    assert load_secret_key(settings) == key
    files = list(settings.data_dir.iterdir())
    assert [file.name for file in files] == ["secret.key"]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_processes_that_start_at_once_share_one_key(tmp_path):
    settings = Settings(data_dir=tmp_path)

    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(lambda _: load_secret_key(settings), range(16)))

    assert len(keys) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["secret.key"]


def test_key_readable_by_others_is_closed_to_them(tmp_path):
    settings = Settings(data_dir=tmp_path)
    key = load_secret_key(settings)
    (tmp_path / "secret.key").chmod(0o644)

    assert load_secret_key(settings) == key
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600


def test_setting_wins_and_makes_no_file(tmp_path):
    assert load_secret_key(Settings(data_dir=tmp_path, secret_key="s" * 32)) == b"s" * 32
    assert list(tmp_path.iterdir()) == []


def test_short_key_is_refused_and_not_shown(tmp_path):
    with pytest.raises(SettingError, match="BERAY_SECRET_KEY") as error:
        load_secret_key(Settings(data_dir=tmp_path, secret_key="hunter2"))

    assert "hunter2" not in str(error.value)


def test_damaged_key_file_is_named(tmp_path):
    (tmp_path / "secret.key").write_text("")

    with pytest.raises(SettingError, match=r"secret\.key holds 0 bytes"):
        load_secret_key(Settings(data_dir=tmp_path))
