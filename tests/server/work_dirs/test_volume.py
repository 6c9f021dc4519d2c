"""Each process shows itself in the folder of the work_dirs, and sees who does not use the same."""

import os
import stat
import threading
import time

import pytest

from beray.server.work_dirs.volume import FOLDER, MARK_FILE, OLD_SECONDS, Volume


def test_processes_on_one_folder_see_each_other(tmp_path):
    mine, other = Volume(tmp_path, "mine"), Volume(tmp_path, "other")
    mine.join()
    other.join()

    assert mine.missing(["mine", "other"]) == []
    assert other.missing(["mine", "other"]) == []


def test_process_on_another_folder_is_missing(tmp_path):
    mine, elsewhere = Volume(tmp_path / "a", "mine"), Volume(tmp_path / "b", "elsewhere")
    mine.join()
    elsewhere.join()

    assert mine.missing(["mine", "elsewhere", "another"]) == ["another", "elsewhere"]
    assert elsewhere.missing(["mine", "elsewhere"]) == ["mine"]


def test_process_that_has_left_is_missing(tmp_path):
    mine, other = Volume(tmp_path, "mine"), Volume(tmp_path, "other")
    mine.join()
    other.join()

    other.leave()
    other.leave()

    assert mine.missing(["other"]) == ["other"]
    assert os.listdir(tmp_path / FOLDER) == ["mine"]


def test_file_says_which_process_it_is_and_shows_nothing_to_others(tmp_path):
    """A task's user may pass the folder of the work_dirs; it must not list who works here."""
    volume = Volume(tmp_path, "mine")

    volume.join()

    assert (tmp_path / FOLDER / "mine").read_text() == f"{os.getpid()}\n"
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) & 0o066 == 0


def test_processes_that_join_at_once_all_show(tmp_path):
    names = [f"process-{number}" for number in range(20)]
    start = threading.Barrier(len(names))

    def join(name):
        start.wait(10)
        Volume(tmp_path / "new" / "folder", name).join()

    threads = [threading.Thread(target=join, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    mine = Volume(tmp_path / "new" / "folder", names[0])
    assert mine.missing(names) == []


def make_old(path):
    old = time.time() - OLD_SECONDS - 60
    os.utime(path, (old, old))


def test_sweep_removes_what_was_left_long_ago_only(tmp_path):
    names = ["mine", "young", "old"]
    for name in names:
        Volume(tmp_path, name).join()
    make_old(tmp_path / FOLDER / "old")
    make_old(tmp_path / FOLDER / "mine")
    mine = Volume(tmp_path, "mine")

    assert mine.missing([]) == []
    mine.sweep()

    assert sorted(os.listdir(tmp_path / FOLDER)) == ["mine", "young"], "a look keeps the own file young"


def test_own_file_that_was_removed_comes_back_with_the_next_look(tmp_path):
    mine, other = Volume(tmp_path, "mine"), Volume(tmp_path, "other")
    mine.join()
    other.join()
    (tmp_path / FOLDER / "mine").unlink()
    assert other.missing(["mine"]) == ["mine"]

    mine.missing([])

    assert other.missing(["mine"]) == []


def test_folder_that_is_gone_is_an_error(tmp_path):
    volume = Volume(tmp_path / "a", "mine")
    volume.join()
    (tmp_path / "a").rename(tmp_path / "b")

    with pytest.raises(FileNotFoundError):
        volume.missing([])
    with pytest.raises(FileNotFoundError):
        volume.missing(["mine"])
    volume.sweep()
    volume.leave()


def test_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match="file"):
        Volume(tmp_path / "file", "mine").join()


def test_folder_keeps_the_mark_that_it_got_first(tmp_path):
    mine, other = Volume(tmp_path, "mine"), Volume(tmp_path, "other")
    mine.join()
    other.join()

    mark = mine.mark()

    assert len(mark) == 32
    assert other.mark() == mark
    assert other.has_mark(mark)
    assert sorted(os.listdir(tmp_path)) == [FOLDER, MARK_FILE]
    assert sorted(os.listdir(tmp_path / FOLDER)) == ["mine", "other"]


def test_another_folder_has_another_mark(tmp_path):
    mine, elsewhere = Volume(tmp_path / "a", "mine"), Volume(tmp_path / "b", "elsewhere")
    mine.join()
    elsewhere.join()

    assert not elsewhere.has_mark(mine.mark())
    assert not (tmp_path / "b" / MARK_FILE).exists(), "asking makes none"
