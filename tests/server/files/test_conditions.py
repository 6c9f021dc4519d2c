import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.server.errors import Refused
from beray.server.files.conditions import Slice, is_unchanged, matches, wanted_slice

ETAG = '"abc"'


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("", None),
        ("bytes=0-0", Slice(0, 1)),
        ("bytes=2-5", Slice(2, 6)),
        ("Bytes=2-5", Slice(2, 6)),
        ("bytes=7-", Slice(7, 10)),
        ("bytes=7-99", Slice(7, 10)),
        ("bytes=-3", Slice(7, 10)),
        ("bytes=-99", Slice(0, 10)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1", None),
        ("items=0-1", None),
        ("bytes=0-1,3-4", None),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), None),
        ("bytes=٣-٤", None),
        ("bytes=0-" + "9" * 5000, None),
    ],
)
def test_range_becomes_a_part_or_the_whole(header: str | None, part: Slice | None) -> None:
    assert wanted_slice(header, None, etag=ETAG, size=10) == part


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=99-100", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_range_without_a_byte_of_the_file_is_refused(header: str, size: int) -> None:
    with pytest.raises(Refused) as refused:
        wanted_slice(header, None, etag=ETAG, size=size)

    assert (refused.value.code, refused.value.status_code) == ("range_not_satisfiable", 416)


@pytest.mark.parametrize(
    ("if_range", "is_part"),
    [(ETAG, True), ('"other"', False), (f"W/{ETAG}", False), ("Tue, 24 Nov 2026 08:00:00 GMT", False)],
)
def test_if_range_gives_a_part_only_of_the_same_file(if_range: str, is_part: bool) -> None:
    assert (wanted_slice("bytes=0-1", if_range, etag=ETAG, size=10) is not None) == is_part


@given(st.text(max_size=40) | st.from_regex(r"bytes=\d{0,25}-\d{0,25}", fullmatch=True), st.integers(0, 2**40))
def test_part_never_leaves_the_file(header: str, size: int) -> None:
    try:
        part = wanted_slice(header, None, etag=ETAG, size=size)
    except Refused:
        return

    assert part is None or 0 <= part.start < part.stop <= size


@pytest.mark.parametrize(
    ("header", "etag", "strong", "weak"),
    [
        ("*", ETAG, True, True),
        ("*", None, False, False),
        (ETAG, ETAG, True, True),
        (ETAG, None, False, False),
        ('"x", "abc" ,"y"', ETAG, True, True),
        ('W/"abc"', ETAG, False, True),
        ('"x,"abc"', ETAG, False, False),
        ("abc", ETAG, False, False),
        ("", ETAG, False, False),
    ],
)
def test_tags_match_strongly_and_weakly(header: str, etag: str | None, strong: bool, weak: bool) -> None:
    assert matches(header, etag, is_weak_fine=False) == strong
    assert matches(header, etag, is_weak_fine=True) == weak


@pytest.mark.parametrize(
    ("none_match", "since", "is_same"),
    [
        (None, None, False),
        (ETAG, None, True),
        ('"other"', "Fri, 01 Jan 2038 00:00:00 GMT", False),
        (None, "Thu, 01 Jan 1970 00:01:40 GMT", True),
        (None, "Thu, 01 Jan 1970 00:01:39 GMT", False),
        (None, "yesterday", False),
        (None, "Fri, 99 Zzz 99999 00:00:00 GMT", False),
    ],
)
def test_copy_of_the_client_is_right_or_not(none_match: str | None, since: str | None, is_same: bool) -> None:
    assert is_unchanged(none_match, since, etag=ETAG, modified_s=100) == is_same
