"""Random input against the places where bytes of others come in."""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beray import ArchiveRefused, extract_zip_safely
from beray.protocol.sse import encode_event
from beray.server.files.zipstream import ZipPieces
from beray.server.work_dirs.work_dir import WorkDir
from tests.fuzz.properties import check_archive, check_event_stream, check_path, make_hostile_work_dir
from tests.protocol.test_sse import STREAM_PIECES, decode_cut
from tests.server.files.files_server import FilesServer, TaskFiles, code_of
from tests.support.archives import archive_of

bounded = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(bounded, max_examples=60)

cuts = st.lists(st.integers(min_value=0, max_value=1 << 16), max_size=12) | st.just(list(range(512)))  # or each byte
lines = [b"data: a\n", b"data: b\n", b"id: 7\n", b"event: c\n", b": d\n", b"\n"]
pieces = st.sampled_from(STREAM_PIECES) | st.sampled_from(lines) | st.binary(max_size=6)
mixed_streams = st.lists(pieces, max_size=30).map(b"".join)
streams = mixed_streams | mixed_streams.map(lambda stream: stream.replace(b"\n", b"\r\n"))
path_pieces = st.sampled_from(
    ["a", "b", "f", "o", "s", "l", "r", "c", "d", "p", "secret", "é", "\uefff", "..", ".", "/", "//", "\\", "\0", "%2e"]
)
paths = st.lists(path_pieces, max_size=12).map("".join) | st.lists(path_pieces, max_size=8).map("/".join) | st.text()
texts = paths.filter(lambda path: path.encode("utf-8", "ignore").decode() == path)  # a lone surrogate can't be sent


@bounded
@given(streams, cuts)
@example(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", [3])
def test_any_event_stream_decodes_as_the_standard_says_however_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    check_event_stream(stream, cuts)


@bounded
@given(st.integers(1, 2**53), st.from_regex(r"[a-z]+\.[a-z_]+", fullmatch=True), st.text(max_size=50), cuts)
def test_any_event_comes_back_as_it_was_encoded(seq: int, type: str, value: str, cuts: list[int]) -> None:
    body = json.dumps({"value": value}, ensure_ascii=False).encode("utf-8", "replace")

    (event,), decoder = decode_cut(encode_event(seq, type, body), cuts)

    assert (event.id, event.type, event.data.encode()) == (str(seq), type, body)
    assert decoder.last_event_id == str(seq)


@pytest.fixture(scope="module")
def hostile_work_dir(tmp_path_factory: pytest.TempPathFactory) -> WorkDir:
    return make_hostile_work_dir(tmp_path_factory.mktemp("hostile"))


@bounded
@given(paths)
def test_any_path_leads_into_the_work_dir_or_is_refused(hostile_work_dir: WorkDir, path: str) -> None:
    check_path(path, hostile_work_dir)


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Archives of any names, then a few bytes changed."""
    simple = st.lists(st.sampled_from(["a", "b", "A", "..", "é"]), min_size=1, max_size=4).map("/".join)
    names = draw(st.lists(simple | texts, max_size=3))
    mode = draw(st.sampled_from([0, 0o100644, 0o040755, 0o120777, 0o010644]))
    archive = bytearray(archive_of(*((name, b"x" * len(name)) for name in names), mode=mode))
    for at, value in draw(st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), max_size=4)):
        archive[at % len(archive)] = value
    return bytes(archive)


@bounded
@given(archives())
def test_any_archive_is_unpacked_in_its_folder_or_refused(archive: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_archive(archive, Path(folder))


raw_names = (
    st.binary(max_size=9) | st.text(st.characters(exclude_categories=["Cs"]), max_size=9).map(str.encode)
).filter(lambda name: not {b"/", b"\0"} & {bytes([byte]) for byte in name} and name not in {b"", b".", b".."})


@bounded
@given(st.sets(raw_names | st.tuples(raw_names, raw_names).map(b"/".join), max_size=6))
@example({b"\xc2\x85", b"C:", b"a\\b", b"\xff", b"_"})
@example({b"a\n", b"a_/b"})
def test_whatever_names_are_in_a_work_dir_its_archive_can_be_unpacked(raw: set[bytes]) -> None:
    """But for names that other systems take for one: those are refused."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "work")
        work.mkdir()
        made = {name for name in raw if make_file(os.fsencode(work) + b"/" + name, name)}
        archive = io.BytesIO(b"".join(pieces_of(WorkDir(work, owner=None))))

        try:
            written = extract_zip_safely(archive, Path(folder, "target"))
        except ArchiveRefused as refused:
            if "on some systems the same" not in str(refused):
                raise
            return

        assert {path.read_bytes() for path in written} == made


def make_file(path: bytes, content: bytes) -> bool:
    """False where a file is in the way of a folder, or the other way round."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        return False
    return True


def pieces_of(work_dir: WorkDir) -> Iterator[bytes]:
    pieces = ZipPieces(work_dir.walk())
    while (piece := pieces.next()) is not None:
        yield piece
    pieces.close()


@pytest.fixture
def task(files_server: FilesServer) -> TaskFiles:
    return files_server.make_task()


names = paths | st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\%"), min_size=1, max_size=40
)
bodies = st.lists(st.binary(max_size=2000) | st.builds(bytes, st.integers(0, 300_000)), max_size=6)


@few
@given(names, bodies, st.booleans())
def test_any_upload_is_read_back_or_refused_and_changes_nothing(
    task: TaskFiles, name: str, body: list[bytes], is_chunked: bool
) -> None:
    content = b"".join(body)
    before = task.tree().json()

    answer = task.put(name, iter(filter(None, body)) if is_chunked else content)

    if answer.status_code not in {200, 201}:
        assert 400 <= answer.status_code < 500, answer.text
        assert code_of(answer) in {"invalid_path", "path_is_directory", "not_a_directory"}
        assert task.tree().json() == before
        return
    told = answer.json()
    assert (told["size"], told["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    got = task.get(told["path"])
    assert (got.content, got.headers["etag"]) == (content, answer.headers["etag"])
    assert task.get(name).content == content
