"""Downloads as flows: no network, real files. `test_files.py` has them against a real server."""

import errno
import gc
import io
import os
import stat
import threading
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beray.exceptions import APIError, ConnectionFailed, DownloadDamaged, NotFoundError, ProtocolError
from beray.transfers import downloads, part_file
from beray.transfers.part_file import PartFile, open_part
from tests.support.archives import archive_of
from tests.support.scripted_remote import DROPPED, ScriptedRemote, answer_of, conditions

CONTENT = bytes(range(256))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written and hashed at once is small, so that a few bytes meet every boundary."""
    monkeypatch.setattr(part_file, "GATHER_BYTES", 16)
    monkeypatch.setattr(part_file, "HASH_BYTES", 32)
    monkeypatch.setattr(part_file, "READ_BYTES", 8)


def download(remote: ScriptedRemote, to: Path, *, max_retries: int = 2, **options: Any) -> Path:
    given = {"overwrite": True, "progress": None, **options}
    return remote.drive(downloads.download_file(1, "out/data.bin", to, conditions(max_retries=max_retries), **given))


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def leave_part(folder: Path, remote: ScriptedRemote, after: int) -> Path:
    """What a call leaves that was cut for good after so many bytes."""
    cut = ScriptedRemote(remote.content, etag=remote.etag, cuts=deque([after]))
    with pytest.raises(ConnectionFailed):
        download(cut, folder / "data.bin", max_retries=0)
    part, note = hidden(folder)
    assert (part[-5:], note[-5:]) == (".part", ".etag")
    return folder / part


# the usual case


def test_file_comes_whole_with_the_usual_permissions(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    remote = ScriptedRemote(CONTENT)

    target = download(remote, tmp_path / "new" / "x", progress=lambda *now: told.append(now))

    assert (target, target.read_bytes()) == (tmp_path / "new" / "x", CONTENT)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~current_umask()
    assert hidden(target.parent) == []
    assert (told[0], told[-1]) == ((0, 256), (256, 256))
    assert told == sorted(told)
    assert remote.calls[0].headers["Want-Repr-Digest"] == "sha-256=10"
    assert remote.calls[0].headers["Accept-Encoding"] == "identity"


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_empty_file_comes_too(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []

    download(ScriptedRemote(b""), tmp_path / "x", progress=lambda *now: told.append(now))

    assert (tmp_path / "x").read_bytes() == b""
    assert set(told) == {(0, 0)}


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.txt", "b.txt"), ("图 1.png", "图 1.png"), ("a/b/", "b"), ("..", "download"), ("x/a\\b\n", "a_b_")],
)
def test_file_in_a_folder_has_its_own_name_made_safe(tmp_path: Path, path: str, name: str) -> None:
    options: dict[str, Any] = {"overwrite": True, "progress": None}

    target = ScriptedRemote(b"x").drive(downloads.download_file(1, path, tmp_path, conditions(), **options))

    assert target == tmp_path / name
    assert target.read_bytes() == b"x"


def test_folder_where_the_file_would_go_is_said(tmp_path: Path) -> None:
    (tmp_path / "data.bin").mkdir()
    remote = ScriptedRemote(CONTENT)

    with pytest.raises(IsADirectoryError):
        download(remote, tmp_path)

    assert remote.calls == []


def test_link_in_the_way_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "x").symlink_to(tmp_path / "precious")

    download(ScriptedRemote(CONTENT), tmp_path / "x")

    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "x").is_symlink()


# cuts


def test_cut_is_resumed_in_the_same_file(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT, cuts=deque([100, 50, None]))

    download(remote, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == CONTENT
    assert [call.headers.get("Range") for call in remote.calls] == [None, "bytes=100-", "bytes=150-"]
    assert [call.headers.get("If-Range") for call in remote.calls] == [None, '"e"', '"e"']
    assert ["Want-Repr-Digest" in call.headers for call in remote.calls] == [True, False, False]


def test_attempts_begin_anew_with_each_progress(tmp_path: Path) -> None:
    """No number of cuts is a reason to give up while something comes; two more attempts that bring nothing are."""
    download(ScriptedRemote(CONTENT, cuts=deque([1] * 200)), tmp_path / "x")
    stuck = ScriptedRemote(CONTENT, cuts=deque([1, 0, 0, 0, None]))
    with pytest.raises(ConnectionFailed):
        download(stuck, tmp_path / "y")

    assert (tmp_path / "x").read_bytes() == CONTENT
    assert len(stuck.calls) == 3


def test_connection_that_can_not_be_made_at_first_is_tried_as_often_as_any_call(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT, cuts=deque([DROPPED] * 9))

    with pytest.raises(ConnectionFailed):
        download(remote, tmp_path / "x")

    assert len(remote.calls) == 3
    assert list(tmp_path.iterdir()) == []


def test_without_retries_a_cut_is_an_error_at_once_and_the_next_call_goes_on(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT)
    leave_part(tmp_path, remote, after=100)

    download(remote, tmp_path / "data.bin")

    assert remote.calls[0].headers["Range"] == "bytes=99-"
    assert "Want-Repr-Digest" in remote.calls[0].headers
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert hidden(tmp_path) == []


def test_part_that_is_whole_already_is_proven_and_used(tmp_path: Path) -> None:
    """Such as that of a process that was killed before the rename."""
    remote = ScriptedRemote(CONTENT)
    part = leave_part(tmp_path, remote, after=100)
    part.write_bytes(CONTENT)

    download(remote, tmp_path / "data.bin")

    assert [call.headers.get("Range") for call in remote.calls] == ["bytes=255-"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"", b"1", CONTENT[:-5] + b"wrong", CONTENT + b"too long"])
def test_part_that_is_not_the_beginning_is_thrown_away(tmp_path: Path, left: bytes) -> None:
    remote = ScriptedRemote(CONTENT)
    leave_part(tmp_path, remote, after=100).write_bytes(left)

    download(remote, tmp_path / "data.bin")

    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert hidden(tmp_path) == []


def test_file_that_changed_since_the_earlier_call_is_taken_anew(tmp_path: Path) -> None:
    leave_part(tmp_path, ScriptedRemote(CONTENT), after=100)
    remote = ScriptedRemote(b"new" * 50, etag='"f"')

    download(remote, tmp_path / "data.bin")

    assert len(remote.calls) == 1
    assert (tmp_path / "data.bin").read_bytes() == b"new" * 50


def test_file_that_changes_between_two_connections_is_taken_anew_and_proven(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT, cuts=deque([100]), changes={1: ScriptedRemote(b"new" * 50, etag='"f"')})

    download(remote, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == b"new" * 50
    assert "Want-Repr-Digest" in remote.calls[-1].headers
    assert "Range" not in remote.calls[-1].headers


@pytest.mark.parametrize(
    "answer",
    [
        answer_of(416, {"Content-Range": "bytes */5"}),
        answer_of(206, {"Content-Range": "bytes 99-255/256", "ETag": '"e"'}, CONTENT[99:]),
        answer_of(206, {"Content-Range": "bytes 100-255/256", "ETag": '"other"'}, CONTENT[100:]),
        answer_of(206, {"Content-Range": "bytes 100-200/256", "ETag": '"e"'}, CONTENT[100:201]),
        answer_of(206, {"Content-Range": "pages 1-2/3"}, b"x"),
        answer_of(206, {}, CONTENT[100:]),
    ],
)
def test_continuation_that_is_none_leads_to_the_whole(tmp_path: Path, answer: Any) -> None:
    remote = ScriptedRemote(CONTENT, cuts=deque([100]), answers={1: answer})

    download(remote, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == CONTENT
    assert "Range" not in remote.calls[2].headers


def test_server_that_ignores_ranges_gives_the_whole(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT, honours_range=False, cuts=deque([100, 200, None]))

    download(remote, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == CONTENT


def test_server_that_ignores_ranges_and_always_cuts_is_given_up(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT, honours_range=False, cuts=deque([100] * 9))

    with pytest.raises(ConnectionFailed):
        download(remote, tmp_path / "x")

    assert len(remote.calls) == 3


@pytest.mark.parametrize("etag", [None, 'W/"weak"', "no quotes"])
def test_file_without_a_strong_tag_is_never_resumed_and_leaves_nothing(tmp_path: Path, etag: str | None) -> None:
    remote = ScriptedRemote(CONTENT, etag=etag, cuts=deque([100, 200, 250]))

    with pytest.raises(ConnectionFailed):
        download(remote, tmp_path / "x")
    left = list(tmp_path.iterdir())
    download(remote, tmp_path / "x")

    assert left == []
    assert [call.headers.get("Range") for call in remote.calls] == [None] * 4
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_refusal_while_resuming_ends_the_download_and_keeps_the_part(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT, cuts=deque([100]), answers={1: answer_of(404, {})})

    with pytest.raises(NotFoundError):
        download(remote, tmp_path / "x")

    assert len(hidden(tmp_path)) == 2


def test_refused_download_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(APIError):
        download(ScriptedRemote(b"", answers={0: answer_of(403, {})}), tmp_path / "x")

    assert list(tmp_path.iterdir()) == []


def test_other_success_than_the_file_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="204"):
        download(ScriptedRemote(b"", answers={0: answer_of(204, {})}), tmp_path / "x")


def test_encoded_answer_is_believed_but_not_measured(tmp_path: Path) -> None:
    """Somebody between has packed it: tag, length and digest are of other bytes than come."""
    packed = answer_of(200, {"Content-Encoding": "gzip", "Content-Length": "3", "ETag": '"e"'}, CONTENT)

    download(ScriptedRemote(CONTENT, answers={0: packed}), tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == CONTENT


# proof


def test_damaged_file_is_thrown_away_and_asked_for_once_more(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT, damage=deque([b"!" + CONTENT[1:]]))

    download(remote, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == CONTENT
    assert ["Range" in call.headers for call in remote.calls] == [False, False]


def test_file_that_is_damaged_twice_is_an_error_and_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    remote = ScriptedRemote(CONTENT, damage=deque([b"!" + CONTENT[1:]] * 2))

    with pytest.raises(DownloadDamaged, match="SHA-256"):
        download(remote, tmp_path / "x")

    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_without_a_digest_the_length_is_proof_enough(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT, has_digest=False)

    download(remote, tmp_path / "x")

    assert (tmp_path / "x").read_bytes() == CONTENT


def test_answer_that_ends_early_without_a_word_is_a_cut(tmp_path: Path) -> None:
    short = answer_of(200, {"Content-Length": "256", "ETag": '"e"'}, CONTENT[:50])
    remote = ScriptedRemote(CONTENT, has_digest=False, answers={0: short})

    download(remote, tmp_path / "x")

    assert remote.calls[1].headers["Range"] == "bytes=50-"
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_answer_that_is_longer_than_it_says_is_damaged(tmp_path: Path) -> None:
    long = answer_of(200, {"Content-Length": "3"}, b"12345")

    with pytest.raises(DownloadDamaged, match="5 bytes instead of 3"):
        download(ScriptedRemote(b"", answers={0: long, 1: long}), tmp_path / "x")


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=200),
    cuts=st.lists(st.one_of(st.none(), st.integers(0, 200)), max_size=6),
    left=st.integers(0, 200),
    piece=st.integers(1, 64),
    etag=st.sampled_from(['"e"', None]),
    has_digest=st.booleans(),
    has_length=st.booleans(),
    honours_range=st.booleans(),
)
def test_whatever_is_cut_and_left_the_file_is_whole_or_not_there(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    cuts: list[int | None],
    left: int,
    piece: int,
    etag: str | None,
    has_digest: bool,
    has_length: bool,
    honours_range: bool,
) -> None:
    folder = tmp_path_factory.mktemp("d")
    if etag and 0 < left < len(content):
        leave_part(folder, ScriptedRemote(content, etag=etag), after=left)
    remote = ScriptedRemote(
        content,
        etag=etag,
        has_digest=has_digest,
        has_length=has_length,
        honours_range=honours_range,
        cuts=deque(cuts),
        piece=piece,
    )

    try:
        download(remote, folder / "data.bin")
    except ConnectionFailed:
        assert not (folder / "data.bin").exists()
        download(ScriptedRemote(content, etag=etag), folder / "data.bin")

    assert (folder / "data.bin").read_bytes() == content
    assert hidden(folder) == []


# what is there already


def test_same_file_is_there_already(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    told: list[tuple[int, int | None]] = []
    remote = ScriptedRemote(CONTENT)

    assert download(remote, tmp_path / "x", overwrite=False, progress=lambda *now: told.append(now)) == tmp_path / "x"

    assert [call.method for call in remote.calls] == ["HEAD"]
    assert told == [(256, 256)]


@pytest.mark.parametrize(
    "remote",
    [
        ScriptedRemote(CONTENT[::-1]),
        ScriptedRemote(CONTENT + b"x"),
        ScriptedRemote(CONTENT, has_digest=False),
    ],
)
def test_other_file_is_kept_and_said(tmp_path: Path, remote: ScriptedRemote) -> None:
    (tmp_path / "x").write_bytes(CONTENT)

    with pytest.raises(FileExistsError) as error:
        download(remote, tmp_path / "x", overwrite=False)

    assert error.value.filename == str(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_server_that_knows_no_head_is_asked_otherwise(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    remote = ScriptedRemote(CONTENT, answers={0: answer_of(405, {}, method="HEAD")})

    assert download(remote, tmp_path / "x", overwrite=False) == tmp_path / "x"

    assert [call.method for call in remote.calls] == ["HEAD", "GET"]


def test_refusal_is_told_with_its_reason_though_a_head_has_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CONTENT)
    refusals = {0: answer_of(404, {}, method="HEAD"), 1: answer_of(404, {}, b"")}

    with pytest.raises(NotFoundError) as error:
        download(ScriptedRemote(CONTENT, answers=refusals), tmp_path / "x", overwrite=False)

    assert error.value.method == "GET"


def test_link_is_never_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(CONTENT)
    (tmp_path / "x").symlink_to(tmp_path / "real")

    with pytest.raises(FileExistsError):
        download(ScriptedRemote(CONTENT), tmp_path / "x", overwrite=False)


@pytest.mark.parametrize("has_links", [True, False])
def test_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    def appear(done: int, total: int | None) -> None:
        (tmp_path / "x").write_text("theirs")

    if not has_links:
        monkeypatch.setattr(part_file.os, "link", unsupported)

    with pytest.raises(FileExistsError):
        download(ScriptedRemote(CONTENT), tmp_path / "x", overwrite=False, progress=appear)

    assert (tmp_path / "x").read_text() == "theirs"


def unsupported(*arguments: object, **options: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "no links here")


def test_new_file_comes_without_overwrite_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_file.os, "link", unsupported)

    download(ScriptedRemote(CONTENT), tmp_path / "x", overwrite=False)

    assert (tmp_path / "x").read_bytes() == CONTENT
    assert hidden(tmp_path) == []


# the part


def test_two_downloads_to_one_place_do_each_other_no_harm(tmp_path: Path) -> None:
    """The second finds the part taken and uses one of its own; whoever ends last is what stays."""
    second: list[bytes] = []

    def download_too(done: int, total: int | None) -> None:
        if not second:
            download(ScriptedRemote(CONTENT), tmp_path / "data.bin")
            second.append((tmp_path / "data.bin").read_bytes())

    download(ScriptedRemote(CONTENT), tmp_path / "data.bin", progress=download_too)

    assert second == [CONTENT]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert hidden(tmp_path) == []


def test_interrupted_download_keeps_what_came(tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done >= 100:
            raise KeyboardInterrupt

    remote = ScriptedRemote(CONTENT)
    with pytest.raises(KeyboardInterrupt):
        download(remote, tmp_path / "data.bin", progress=interrupt)

    download(remote, tmp_path / "data.bin")

    assert remote.calls[1].headers["Range"] == "bytes=104-"  # 15 pieces of 7 bytes, the last byte asked for again
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_full_disk_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = part_file.io.FileIO.write

    class SmallDisk(part_file.io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() >= 60:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(self, data[: 60 - self.tell()])

    remote = ScriptedRemote(CONTENT)
    with monkeypatch.context() as patch:
        patch.setattr(part_file.io, "FileIO", SmallDisk)
        with pytest.raises(OSError, match="60 bytes are kept") as error:
            download(remote, tmp_path / "data.bin")
    [part, _] = hidden(tmp_path)
    download(remote, tmp_path / "data.bin")

    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / part))
    assert remote.calls[1].headers["Range"] == "bytes=59-"
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("plant", ["link", "folder", "hard link", "fifo"])
def test_something_else_in_the_parts_place_is_left_alone(tmp_path: Path, plant: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    part = leave_part(tmp_path, ScriptedRemote(CONTENT), after=100)
    part.unlink()
    {
        "link": lambda: part.symlink_to(precious),
        "folder": part.mkdir,
        "hard link": lambda: part.hardlink_to(precious),
        "fifo": lambda: os.mkfifo(part),
    }[plant]()

    download(ScriptedRemote(CONTENT), tmp_path / "data.bin")

    assert precious.read_text() == "mine"
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert os.path.lexists(part)


def test_link_in_the_place_of_the_tag_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    part = leave_part(tmp_path, ScriptedRemote(CONTENT), after=100)
    note = part.with_name(f"{part.name}.etag")
    note.unlink()
    note.symlink_to(precious)

    download(ScriptedRemote(CONTENT), tmp_path / "data.bin")

    assert precious.read_text() == "mine"
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_part_of_another_file_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """Two files of the same name, downloaded to the same place."""
    leave_part(tmp_path, ScriptedRemote(CONTENT), after=100)
    remote = ScriptedRemote(CONTENT[::-1])
    options: dict[str, Any] = {"overwrite": True, "progress": None}

    remote.drive(downloads.download_file(2, "out/data.bin", tmp_path / "data.bin", conditions(), **options))

    assert "Range" not in remote.calls[0].headers
    assert (tmp_path / "data.bin").read_bytes() == CONTENT[::-1]


def test_long_names_leave_room_for_the_part(tmp_path: Path) -> None:
    target = tmp_path / ("图" * 85)

    download(ScriptedRemote(CONTENT), target)

    assert target.read_bytes() == CONTENT


def test_part_without_a_lock_is_the_callers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_file, "CAN_LOCK", False)
    remote = ScriptedRemote(CONTENT, cuts=deque([100, None]))

    download(remote, tmp_path / "x")

    assert remote.calls[1].headers["Range"] == "bytes=100-"
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_part_that_was_moved_away_before_it_was_locked_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the second of two processes would write into what has become the target of the first."""
    real, target = part_file.fcntl.flock, tmp_path / "x"
    first: PartFile = open_part(target, "source")
    first.restart('"e"')
    first.add(CONTENT)

    def flock(descriptor: int, operation: int) -> None:
        if not target.exists():
            first.move_to(target, can_replace=True)
            first.close()
        real(descriptor, operation)

    monkeypatch.setattr(part_file.fcntl, "flock", flock)
    first.flush()
    second = open_part(target, "source")
    second.add(b"other")
    second.flush()
    second.close()

    assert target.read_bytes() == CONTENT


def test_part_that_somebody_cuts_meanwhile_is_noticed(tmp_path: Path) -> None:
    remote = ScriptedRemote(CONTENT)
    part = leave_part(tmp_path, remote, after=200)

    def cut(done: int, total: int | None) -> None:
        if len(remote.calls) == 1:
            os.truncate(part, 10)

    download(remote, tmp_path / "data.bin", progress=cut)

    assert len(remote.calls) == 2
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_closing_waits_for_a_thread_that_still_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is cancelled on an event loop closes the part while a thread of theirs may be in the middle of a write."""
    is_writing, may_write = threading.Event(), threading.Event()
    real = io.FileIO.write

    def write(file: io.FileIO, data: Any) -> int:
        is_writing.set()
        assert may_write.wait(20)
        return real(file, data)

    monkeypatch.setattr(part_file.io, "FileIO", type("Slow", (io.FileIO,), {"write": write}))
    part = open_part(tmp_path / "x", "source")
    may_write.set()
    part.restart('"e"')
    may_write.clear()
    is_writing.clear()
    part.add(CONTENT)
    writing = threading.Thread(target=part.flush)
    writing.start()
    assert is_writing.wait(20)
    closing = threading.Thread(target=part.close)
    closing.start()
    may_write.set()
    for thread in (writing, closing):
        thread.join(20)

    assert part.path.read_bytes() == CONTENT


def test_part_that_nobody_got_is_closed_and_removed(tmp_path: Path) -> None:
    """Such as that of a call that was cancelled while a thread opened it."""
    open_part(tmp_path / "x", "source")
    gc.collect()

    assert list(tmp_path.iterdir()) == []


# archives


def test_archive_is_whole_or_not_there(tmp_path: Path) -> None:
    archive = archive_of(("a", b"1" * 50), ("b", b"2"))
    remote = ScriptedRemote(archive, etag=None, has_length=False, has_digest=False, cuts=deque([40, None]))
    options: dict[str, Any] = {"paths": ["a"], "overwrite": True, "progress": None}

    target = remote.drive(downloads.download_zip(7, tmp_path, conditions(), **options))

    assert (target, target.read_bytes()) == (tmp_path / "task-7.zip", archive)
    assert [call.headers.get("Range") for call in remote.calls] == [None, None]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("damage", ["cut", "lost", "more", "nothing", "page"])
def test_archive_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    archive = archive_of(("a", b"1" * 50), ("b", b"2"))
    given = {
        "cut": archive[:-1],
        "lost": archive[:10] + archive[20:],
        "more": archive + b"x",
        "nothing": b"",
        "page": b"<html>please log in</html>",
    }[damage]
    options: dict[str, Any] = {"paths": [], "overwrite": True, "progress": None}

    with pytest.raises(DownloadDamaged, match="ZIP"):
        ScriptedRemote(given, etag=None).drive(downloads.download_zip(7, tmp_path, conditions(), **options))

    assert list(tmp_path.iterdir()) == []


def test_archive_that_is_there_is_kept_unless_overwritten(tmp_path: Path) -> None:
    (tmp_path / "task-7.zip").write_text("mine")
    remote = ScriptedRemote(archive_of(("a", b"1")))
    options: dict[str, Any] = {"paths": [], "overwrite": False, "progress": None}

    with pytest.raises(FileExistsError):
        remote.drive(downloads.download_zip(7, tmp_path, conditions(), **options))

    assert remote.calls == []
    assert (tmp_path / "task-7.zip").read_text() == "mine"


def test_cut_archive_with_a_tag_is_not_resumed(tmp_path: Path) -> None:
    """It is made anew for each request, so its bytes need not be the same."""
    archive = archive_of(("a", b"1" * 50))
    remote = ScriptedRemote(archive, cuts=deque([40, None]))
    options: dict[str, Any] = {"paths": [], "overwrite": True, "progress": None}

    remote.drive(downloads.download_zip(7, tmp_path, conditions(), **options))

    assert "Range" not in remote.calls[1].headers
