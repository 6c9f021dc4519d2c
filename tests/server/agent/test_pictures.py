"""Pictures that read_file finds: shown to models that see, described to the others, kept over a crash."""

import base64
import json
import struct
import zlib
from dataclasses import replace

import pytest

from beray.server.agent.models.vision import sees_images
from beray.server.agent.tools import pictures
from beray.server.agent.tools.pictures import MOST_BYTES, recognise
from tests.server.agent.test_loop import choice
from tests.support.agent_bench import Crash
from tests.support.scripted_model import Reply, call, failure, sequence, turns


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 2, height: int = 3, *, padding: int = 0) -> bytes:
    """A whole picture; `padding` bytes of comment make it larger."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\xff\0\0" * width) * height
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"tEXt", b"x" * padding),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


GIF = b"GIF89a" + struct.pack("<HH", 4, 5) + b"\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x04\0\x05\0\0\x02\x02D\x01\0;"
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 9 + b"\xff\xff\xc0\0\x11\x08" + struct.pack(">HH", 7, 6) + b"\0" * 10
JPEG += b"\xff\xda\0\x02\x01\xff\xd9"


def webp(kind: bytes, size: bytes) -> bytes:
    body = b"WEBP" + kind + struct.pack("<I", len(size)) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


WEBPS = {
    "VP8X": webp(b"VP8X", b"\0" * 4 + (7).to_bytes(3, "little") + (8).to_bytes(3, "little")),
    "VP8L": webp(b"VP8L", b"\x2f" + struct.pack("<I", 7 | 8 << 14)),
    "VP8 ": webp(b"VP8 ", b"\0" * 3 + b"\x9d\x01\x2a" + struct.pack("<HH", 8, 9)),
}

KNOWN = [(png(), "image/png", 2, 3), (GIF, "image/gif", 4, 5), (JPEG, "image/jpeg", 6, 7)]
KNOWN += [(content, "image/webp", 8, 9) for content in WEBPS.values()]


@pytest.mark.parametrize(("content", "media_type", "width", "height"), KNOWN, ids=lambda value: str(value)[:12])
def test_a_picture_is_known_by_its_first_bytes(content, media_type, width, height):
    picture = recognise(content)

    assert (picture.media_type, picture.width, picture.height, picture.is_whole) == (media_type, width, height, True)


@pytest.mark.parametrize("content", [content for content, *_ in KNOWN], ids=lambda content: str(content[:8]))
def test_a_picture_cut_anywhere_is_damaged_or_none_at_all(content):
    for size in range(len(content) - 4):
        picture = recognise(content[:size])

        assert picture is None or not picture.is_whole


def png_of(packed: list[bytes], *, header: bytes = struct.pack(">IIBBBBB", 100, 50, 8, 2, 0, 0, 0)) -> bytes:
    """A picture of 100 x 50 pixels whose chunks are sound, whatever they hold."""
    chunks = [chunk(b"IHDR", header), *(chunk(b"IDAT", data) for data in packed), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


ROWS = zlib.compress((b"\0" + b"\xff\0\0" * 100) * 50)


def test_a_png_may_come_in_pieces_and_with_something_behind_it():
    content = png_of([ROWS[at : at + 7] for at in range(0, len(ROWS), 7)]) + b"more"

    assert recognise(content).is_whole


BROKEN_PNGS = {
    "not packed": png_of([b"not zlib at all"]),
    "too few rows": png_of([zlib.compress(b"\0" * 1000)]),
    "packed rows cut": png_of([ROWS[: len(ROWS) // 2]]),
    "nothing packed": png_of([]),
    "no such colour type": png_of([ROWS], header=struct.pack(">IIBBBBB", 100, 50, 8, 5, 0, 0, 0)),
    "no header": b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""),
    "one bit": png_of([ROWS]).replace(b"IDAT", b"IDAU"),
}


@pytest.mark.parametrize("case", BROKEN_PNGS)
async def test_a_png_that_is_broken_inside_is_told_to_be_damaged(bench, scripted, case):
    """A provider refuses it, and with it each further request of the conversation."""
    (bench.work_dir / "a.png").write_bytes(BROKEN_PNGS[case])
    server = scripted(turns(Reply(calls=LOOK), Reply("done")))

    await bench.run("go", model=choice(server, sees_images=True))

    assert shown(server.requests[1]) == []
    assert "It is not shown: it is damaged" in results(server.requests[1])[0]


@pytest.mark.parametrize("content", [b"", b"RIFF\0\0\0\0WAVEfmt ", b"text", b"\xff\xd9", b"%PDF-1.7"])
def test_what_is_no_picture_is_none(content):
    assert recognise(content) is None


@pytest.mark.parametrize(
    ("name", "sees"),
    [
        ("openai:gpt-5", True),
        ("openai:gpt-4o-mini", True),
        ("openai:gpt-3.5-turbo", False),
        ("openai:o3-mini", False),
        ("openai:gpt-4o-audio-preview", False),
        ("anthropic:claude-sonnet-4-5", True),
        ("anthropic:claude-2.1", False),
        ("dashscope:qwen-plus", False),
        ("dashscope:qwen3-vl-plus", True),
        ("zai:glm-4.7", False),
        ("zai:glm-4.6v", True),
        ("moonshotai:kimi-k2.5", True),
        ("deepseek:deepseek-chat", False),
        ("ollama:qwen3", False),
        ("ollama:llava:13b", True),
        ("ollama:gemma3:4b", True),
        ("ollama:gemma3:1b", False),
        ("vllm:meta-llama/Llama-3.2-11B-Vision-Instruct", True),
        ("vllm:Qwen/Qwen2.5-VL-7B-Instruct", True),
        ("openai:scripted", False),
        ("beray:rules", False),
    ],
)
def test_which_models_see_is_judged_by_their_names(name, sees):
    assert sees_images(name, "auto") is sees
    assert sees_images(name, "1")
    assert not sees_images(name, "0")


def shown(request):
    """The pictures of a request, decoded, in order."""
    listed = [message["content"] for message in request["messages"] if isinstance(message["content"], list)]
    parts = [part for content in listed for part in content]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [(url.partition(";")[0], base64.b64decode(url.partition(",")[2])) for url in urls]


def results(request):
    return [message["content"] for message in request["messages"] if message["role"] == "tool"]


LOOK = [call("read_file", path="a.png")]


async def test_a_model_that_sees_is_shown_the_picture(bench, scripted):
    (bench.work_dir / "a.png").write_bytes(png())
    server = scripted(turns(Reply(calls=LOOK), Reply(calls=[call("shell", command="true")]), Reply("It is red.")))

    outcome = await bench.run("What is on it?", model=choice(server, sees_images=True))

    assert outcome.result == "It is red."
    assert shown(server.requests[1]) == shown(server.requests[2]) == [("data:image/png", png())]
    assert f"a.png is a PNG picture of 2 x 3 pixels, {len(png())} bytes." in results(server.requests[1])[0]
    finished = (await bench.events("tool.finished"))[0]
    assert (finished["ok"], finished["summary"]) == (True, "a picture of 2 x 3 pixels")


UNSEEN = {
    "blind model": (png(), {"sees_images": False}, "this model can't see pictures"),
    "cut": (png()[:-20], {}, "it is damaged, or was not written to its end"),
    "large": (png(padding=MOST_BYTES), {}, "at most 5000000 bytes and 8000 pixels a side can be"),
    "wide": (png(8001, 1), {}, "at most 5000000 bytes and 8000 pixels a side can be"),
}


@pytest.mark.parametrize("case", UNSEEN)
async def test_a_picture_that_cannot_be_shown_is_described(bench, scripted, case):
    content, changes, why = UNSEEN[case]
    (bench.work_dir / "a.png").write_bytes(content)
    server = scripted(turns(Reply(calls=LOOK), Reply("done")))

    await bench.run("go", model=choice(server, **{"sees_images": True, **changes}))

    assert shown(server.requests[1]) == []
    (told,) = results(server.requests[1])
    assert told.startswith("a.png is a PNG picture of ")
    assert f"It is not shown: {why}" in told


async def test_pictures_of_a_run_are_bounded_together(bench, scripted, monkeypatch):
    """All of them are sent again with every request."""
    monkeypatch.setattr(pictures, "MOST_BYTES_A_RUN", 2 * len(png()) + 1)
    (bench.work_dir / "a.png").write_bytes(png())
    server = scripted(turns(Reply(calls=LOOK * 2), Reply(calls=LOOK), Reply("done")))

    await bench.run("go", model=choice(server, sees_images=True))

    assert len(shown(server.requests[-1])) == 2
    assert "the pictures shown before leave no room for it" in results(server.requests[-1])[2]


@pytest.mark.parametrize("point", ["tool.finished", "step.finished"])
async def test_a_picture_survives_a_crash_and_is_kept_once(bench, scripted, point):
    """The record of its call holds it; no checkpoint does."""
    picture = png(padding=10_000)
    (bench.work_dir / "a.png").write_bytes(picture)
    server = scripted(turns(Reply(calls=LOOK), Reply("It is red.")))

    def crash(when, types):
        if when == "after" and point in types:
            raise Crash(when, types)

    bench.crash = crash
    with pytest.raises(Crash):
        await bench.run("go", model=choice(server, sees_images=True))
    bench.crash = None
    (bench.work_dir / "a.png").unlink()
    outcome = await bench.run("go", model=choice(server, sees_images=True))

    assert outcome.result == "It is red."
    assert shown(server.requests[-1]) == [("data:image/png", picture)]
    sizes = await bench.database.read(lambda connection: stored_sizes(connection))
    assert sizes["checkpoint"] < 10_000 < sizes["tool_call"] < 20_000


def stored_sizes(connection):
    (messages,) = connection.exec_driver_sql("SELECT messages FROM checkpoint").one()
    (result,) = connection.exec_driver_sql("SELECT result FROM tool_call").one()
    assert len(json.loads(result)["pictures"]) == 1
    return {"checkpoint": len(messages), "tool_call": len(result)}


async def test_a_fallback_model_that_does_not_see_is_told_so(bench, scripted):
    """A picture in the conversation must not end the run with it, and no further one is sent."""
    (bench.work_dir / "a.png").write_bytes(png())
    server = scripted(sequence(Reply(calls=LOOK), failure(401), Reply(calls=LOOK), Reply("done")))
    blind = replace(choice(server), name="openai:blind")

    outcome = await bench.run("go", model=choice(server, sees_images=True), fallback=(blind,))

    assert outcome.result == "done"
    assert [len(shown(request)) for request in server.requests] == [0, 1, 0, 0]
    assert "was not sent: this model cannot read images." in json.dumps(server.requests[2]["messages"])
    assert "this model can't see pictures" in results(server.requests[3])[1]


def refusing_pictures(script):
    def play(request, number):
        if shown(request):
            return failure(400, "Could not process image")
        return script(request, number)

    return play


async def test_a_picture_the_provider_refuses_does_not_end_the_task(bench, scripted):
    (bench.work_dir / "a.png").write_bytes(png())
    server = scripted(refusing_pictures(turns(Reply(calls=LOOK), Reply("It is red."))))

    outcome = await bench.run("go", model=choice(server, sees_images=True))

    assert outcome.result == "It is red."
    assert [len(shown(request)) for request in server.requests] == [0, 1, 0]
    assert "the model's server refused it" in results(server.requests[2])[0]
    (retry,) = await bench.events("model.retry")
    assert retry["code"] == "model_error"


async def test_a_refused_picture_stays_away_over_a_crash(bench, scripted):
    (bench.work_dir / "a.png").write_bytes(png())
    script = refusing_pictures(turns(Reply(calls=LOOK), Reply(calls=[call("shell", command="true")]), Reply("done")))
    server = scripted(script)

    def crash(when, types):
        if when == "after" and "model.retry" in types:
            raise Crash(when, types)

    bench.crash = crash
    with pytest.raises(Crash):
        await bench.run("go", model=choice(server, sees_images=True))
    bench.crash = None
    outcome = await bench.run("go", model=choice(server, sees_images=True))

    assert outcome.result == "done"
    assert [len(shown(request)) for request in server.requests] == [0, 1, 0, 0]


async def test_a_request_that_is_refused_without_pictures_too_ends_the_run(bench, scripted):
    (bench.work_dir / "a.png").write_bytes(png())
    server = scripted(sequence(Reply(calls=LOOK), failure(400, "tools are not supported")))

    outcome = await bench.run("go", model=choice(server, sees_images=True))

    assert outcome.error["code"] == "model_error"
    assert len(server.requests) == 3
