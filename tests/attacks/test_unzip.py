"""Attack 41: archives made to harm whoever unpacks them with the SDK."""

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from beray import ArchiveRefused, extract_zip_safely
from beray.transfers import names
from tests.support.archives import FLAGS_AT, METHOD_AT, OFFSET_AT, SIZE_AT, archive_of, names_of, patched

ORDINARY = ("ordinary.txt", b"it is unpacked first")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("kept")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Not there yet, nor is its parent."""
    return tmp_path / "results" / "1"


@pytest.fixture(autouse=True)
def only_the_target_changes(tmp_path: Path, outside: Path) -> Iterator[None]:
    yield
    assert {path.name for path in tmp_path.iterdir()} <= {"outside", "results"}
    assert [path.read_text() for path in outside.iterdir()] == ["kept"]


def everything_below(folder: Path) -> list[tuple[str, str | bytes | None]]:
    return sorted((str(path), _content(path)) for path in folder.rglob("*"))


def _content(path: Path) -> str | bytes | None:
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.is_file() else None


def refusal(archive: bytes, target: Path, **options: float) -> ArchiveRefused:
    """How it is refused; nothing may be left of it."""
    before = everything_below(target.parents[1])
    with pytest.raises(ArchiveRefused) as refused:
        extract_zip_safely(io.BytesIO(archive), target, **options)
    assert everything_below(target.parents[1]) == before
    assert "\n" not in str(refused.value)
    return refused.value


@pytest.mark.parametrize(
    "name",
    [
        *("../precious", "a/../../precious", "..", "a/..", "../", "/precious", "//precious", "/", ""),
        *("..\\precious", "a\\..\\..\\precious", "\\precious", "\\\\server\\share\\x", "a\\b"),
        *("C:precious", "c:/precious", "C:\\precious", "C:"),
        *("precious\0.txt", "\0", "a\nb", "a\x1b[2Jb", "a\x7fb", "a\x85b"),
        *(".", "./a", "a/./b", "a//b", "a//", "x" * 256, "é" * 128, "/".join("a" * 129)),
    ],
)
def test_attack_41_name_that_leads_out_or_means_another_place_elsewhere_is_refused(name: str, target: Path) -> None:
    refused = refusal(archive_of(ORDINARY, (name, b"planted")), target)

    assert (refused.reason, refused.entry) == ("name", name)


@pytest.mark.parametrize(
    "name", ["con", "NUL", "aux.txt", "a/COM1", "lpt9.tar.gz", "com¹", "CONIN$", "nul .txt", "a:b", "a?", "dot.", "a "]
)
def test_attack_41_name_of_a_device_is_refused_on_windows(
    name: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_ON_WINDOWS", True)

    assert refusal(names_of([name]), target).reason == "name"


@pytest.mark.parametrize("name", ["console.txt", "auxiliary", "com", "com10", "a.con"])
def test_name_like_a_devices_is_none(name: str, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_ON_WINDOWS", True)

    assert extract_zip_safely(io.BytesIO(names_of([name])), target) == [target / name]


@pytest.mark.parametrize("content", [b"/etc/passwd", b"../outside", b"ordinary.txt"])
def test_attack_41_link_is_refused_wherever_it_leads(content: bytes, target: Path) -> None:
    archive = archive_of(("link", content), mode=stat.S_IFLNK | 0o777)

    assert refusal(archive, target).reason == "link"


def test_attack_41_link_of_windows_is_refused(target: Path) -> None:
    assert refusal(archive_of(("link", b"x"), attributes=0x400), target).reason == "link"


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR])
def test_attack_41_what_is_no_plain_file_is_refused(kind: int, target: Path) -> None:
    assert refusal(archive_of(("it", b""), mode=kind | 0o644), target).reason == "special"


@pytest.mark.parametrize("mode", [0, stat.S_IFREG, stat.S_IFDIR])
def test_attack_41_folder_with_content_is_refused(mode: int, target: Path) -> None:
    assert refusal(archive_of(("folder/", b"x"), mode=mode), target).reason == "special"


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("a/", "a/"),
        ("a", "a/"),
        ("a/", "a"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/b/c", "a/b"),
        ("a", "A"),
        ("a/x", "A/y"),
        ("straße", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("ﬁ", "FI"),
    ],
)
def test_attack_41_two_names_of_one_place_are_refused(names: tuple[str, str], target: Path) -> None:
    contents = [(name, b"" if name.endswith("/") else b"x") for name in names]

    assert refusal(archive_of(*contents), target).reason == "duplicate"


def test_attack_41_bomb_of_one_file_is_refused_by_what_it_unpacks_to(target: Path) -> None:
    """Its header is true. All of it would be 80 MiB."""
    archive = archive_of(ORDINARY, ("bomb", bytes(80 << 20)))
    assert len(archive) < 100_000

    assert refusal(archive, target).reason == "ratio"
    assert refusal(archive, target, max_bytes=1 << 20).reason == "too_large"


def test_attack_41_bomb_of_many_files_is_refused_as_a_whole(target: Path) -> None:
    archive = archive_of(*((f"f{number}", bytes(4 << 20)) for number in range(20)))

    assert refusal(archive, target).reason == "ratio"
    assert refusal(archive, target, max_ratio=10_000, max_bytes=79 << 20).reason == "too_large"


@pytest.mark.parametrize("said", [0, 1, 999, 1001, 2**32 - 2])
def test_attack_41_size_that_is_a_lie_is_refused(said: int, target: Path) -> None:
    archive = patched(archive_of(("x", b"x" * 1000)), SIZE_AT, said, size=4)

    assert refusal(archive, target).reason in {"damaged", "too_large"}


def test_attack_41_kernel_that_many_entries_share_is_refused(target: Path) -> None:
    archive = patched(archive_of(("a", b"x"), ("b", b"x")), OFFSET_AT, 0, size=4, entry=1)

    assert refusal(archive, target).reason == "overlap"


@pytest.mark.parametrize("offset", [10_000, 2**31, 2**32 - 2])
def test_attack_41_entry_that_lies_outside_is_refused(offset: int, target: Path) -> None:
    assert refusal(patched(names_of(["a"]), OFFSET_AT, offset, size=4), target).reason == "overlap"


def test_attack_41_too_many_entries_are_refused_before_they_fill_the_memory(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`zipfile` would make an object of each; here it makes none."""
    archive = names_of(f"f{number}" for number in range(2000))
    monkeypatch.setattr(zipfile, "ZipInfo", None)

    assert refusal(archive, target, max_entries=1999).reason == "too_many_entries"


def test_attack_41_folders_that_no_entry_names_are_counted(target: Path) -> None:
    archive = names_of(f"{number}/" + "a/" * 100 + "x" for number in range(5))

    assert refusal(archive, target, max_entries=500).reason == "too_many_entries"


@pytest.mark.parametrize("flags", [0x1, 0x41, 0x2001])
def test_attack_41_encrypted_entry_is_refused(flags: int, target: Path) -> None:
    assert refusal(patched(names_of(["a"]), FLAGS_AT, flags, size=2), target).reason == "encrypted"


@pytest.mark.parametrize("method", [9, 12, 14, 93, 99])
def test_attack_41_other_method_than_deflate_is_refused(method: int, target: Path) -> None:
    assert refusal(patched(names_of(["a"]), METHOD_AT, method, size=2), target).reason == "method"


@pytest.mark.parametrize("cut", [0, 1, 21, 60, 100, 160])
def test_attack_41_damaged_archive_leaves_nothing(cut: int, target: Path) -> None:
    archive = archive_of(ORDINARY, ("a", os.urandom(200)))

    assert refusal(archive[:-cut] if cut else b"", target).reason in {"damaged", "overlap"}
    broken = archive.replace(b"PK\x03\x04", b"PK\x03\x05") if cut else b"no archive at all"
    assert refusal(broken, target).reason == "damaged"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["link", "link/precious", "link/new", "real/link", "real/link/precious"])
def test_attack_41_link_that_waits_in_the_target_is_not_written_through(
    name: str, overwrite: bool, target: Path, outside: Path
) -> None:
    for folder in (target, target / "real"):
        folder.mkdir(parents=True)
        (folder / "link").symlink_to(outside)

    assert refusal(archive_of(ORDINARY, (name, b"planted")), target, overwrite=overwrite).reason == "link"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("goal", ["precious", "nothing"])
def test_attack_41_link_to_a_file_in_the_target_is_not_written_through(
    goal: str, overwrite: bool, target: Path, outside: Path
) -> None:
    target.mkdir(parents=True)
    (target / "file").symlink_to(outside / goal)

    assert refusal(archive_of(("file", b"planted")), target, overwrite=overwrite).reason == "link"
