import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.server.errors import Refused, shown
from beray.server.work_dirs.paths import (
    MAX_DEPTH,
    parse_new_path,
    parse_path,
    wire_name,
    wire_path,
)

names_on_disk = st.binary(min_size=1, max_size=60).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."}
)

HOSTILE = [
    "",
    "/etc/passwd",
    "//etc/passwd",
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "a/../b",
    "a\0b",
    "\0",
    "x" * 300,
    "é" * 128,
    "a/" * 2500,
    "/".join("a" * (MAX_DEPTH + 1)),
    "\ud800",
    "a/\udcff",
]


@pytest.mark.parametrize("path", HOSTILE)
def test_hostile_path_is_refused_in_both_languages(path: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_path(path)

    assert refused.value.code == "invalid_path"
    for language in ("zh", "en"):
        detail = refused.value.detail(language)
        assert "{" not in detail
        assert len(detail) < 1000
        detail.encode()


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (".", ()),
        ("./", ()),
        ("images/", (b"images",)),
        ("./a//b/.", (b"a", b"b")),
        ("...", (b"...",)),
        ("..x", (b"..x",)),
        ("%2e%2e", (b"%2e%2e",)),
        ("中文.txt", ("中文.txt".encode(),)),
        ("a\\b", (b"a\\b",)),
        ("x" * 255, (b"x" * 255,)),
    ],
)
def test_path_becomes_its_names(path: str, parts: tuple[bytes, ...]) -> None:
    assert parse_path(path) == parts


@pytest.mark.parametrize(
    "path",
    [
        *HOSTILE,
        ".",
        "a/",
        "a/.",
        "a\\b",
        "..\\x",
        "%2e%2e/x",
        "%2E%2e",
        "%252e%252e/../x",
        "%2fetc",
        "a%5cb",
        "a%0ab",
        "a\nb",
        "a\x7fb",
        "a\x85b",
        "\uefff",
    ],
)
def test_path_that_is_unsafe_elsewhere_cannot_be_written(path: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_new_path(path)

    assert refused.value.code == "invalid_path"


@pytest.mark.parametrize(
    "path", ["a", "a/b.txt", ".env", "100%.txt", "50%25.csv", "目录/文件 1.md", 'quo"te', "👩‍🚀.png"]
)
def test_ordinary_path_can_be_written(path: str) -> None:
    assert wire_path(parse_new_path(path)) == path


@given(names_on_disk)
def test_every_name_on_disk_has_a_wire_form_that_leads_back(name: bytes) -> None:
    wire = wire_name(name)

    wire.encode()  # valid text: JSON and URLs can carry it
    assert parse_path(f"folder/{wire}") == (b"folder", name)


@given(st.text(max_size=80))
def test_no_text_leads_to_a_name_that_climbs_or_splits(path: str) -> None:
    try:
        parts = parse_path(path)
    except Refused:
        return

    assert all(part not in {b"", b".", b".."} and b"/" not in part and b"\0" not in part for part in parts)


def test_name_that_is_text_is_shown_as_it_is() -> None:
    assert wire_name("é中😀 \n\"'".encode()) == "é中😀 \n\"'"


def test_byte_that_is_no_text_is_shown_as_a_private_character() -> None:
    assert wire_name(b"caf\xe9") == "caf\uefe9"
    assert os.fsencode("caf\udce9") == b"caf\xe9"


def test_shown_path_is_short_and_printable() -> None:
    assert shown("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
    assert len(shown("x" * 5000)) < 130
