"""Pictures a model can look at: recognised by their first bytes, never by their name, and only if they are whole.

What is damaged is refused by a provider with an error that would end the run, and again at each further request of that
conversation; so what is not understood here is not sent.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

MOST_BYTES: Final = 5_000_000  # of one picture; the smallest limit of the providers is 5 MB
MOST_PIXELS: Final = 8000  # of one side; more is refused by some providers
MOST_BYTES_A_RUN: Final = 20_000_000  # all are sent again with each request, and requests are limited to some 30 MB
UNPACKED_BYTES: Final = 1 << 20  # of a PNG at a time

_KINDS: Final = {"image/png": "PNG", "image/jpeg": "JPEG", "image/gif": "GIF", "image/webp": "WebP"}


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        width: In pixels; 0 if it can't be told.
        is_whole: It begins and ends as such a file does; a PNG's content is sound too.
    """

    media_type: str
    width: int
    height: int
    is_whole: bool
    content: bytes = field(repr=False)

    @property
    def kind(self) -> str:
        """Its format's name."""
        return _KINDS[self.media_type]

    @property
    def about(self) -> str:
        """What it is, for the model."""
        return f"a {self.kind} picture of {self.width} x {self.height} pixels, {len(self.content)} bytes"


def why_unseen(picture: Picture, *, sees: bool, held_bytes: int) -> str:
    """Why a model can't be shown the picture, with what to do instead; "" if it can.

    Args:
        picture: The picture.
        sees: The model takes pictures.
        held_bytes: What the pictures hold that are in the conversation already.
    """
    if not picture.is_whole or min(picture.width, picture.height) == 0:
        return "It is not shown: it is damaged, or was not written to its end. Make it anew."
    if not sees:
        return "It is not shown: this model can't see pictures. Find out what you need by a program."
    if len(picture.content) > MOST_BYTES or max(picture.width, picture.height) > MOST_PIXELS:
        most = f"{MOST_BYTES} bytes and {MOST_PIXELS} pixels a side"
        return f"It is not shown: at most {most} can be. Make a smaller copy of it and look at that."
    if held_bytes + len(picture.content) > MOST_BYTES_A_RUN:
        return "It is not shown: the pictures shown before leave no room for it. Make a smaller copy and look at that."
    return ""


def recognise(content: bytes) -> Picture | None:
    """The picture that a file's content is, if it is one. Call it in a thread: a PNG is unpacked to see it is whole."""
    for magic, media_type, measure, is_whole in _FORMATS:
        if content.startswith(magic):
            if media_type == "image/webp" and content[8:12] != b"WEBP":
                continue
            width, height = _measured(measure, content)
            return Picture(media_type, width, height, is_whole(content), content)
    return None


def _measured(measure: Callable[[bytes], tuple[int, int]], content: bytes) -> tuple[int, int]:
    try:
        return measure(content)
    except (struct.error, IndexError):  # it ends before it has told
        return 0, 0


def _png_size(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", content, 16)
    return width, height


def _gif_size(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", content, 6)
    return width, height


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """From the frame header, which stands behind segments of any number and size."""
    at = 2
    while content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return width, height
        (length,) = struct.unpack_from(">H", content, at + 2)
        at += 2 + length
    return 0, 0


def _webp_size(content: bytes) -> tuple[int, int]:
    chunk = content[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", content, 26)
    return width & 0x3FFF, height & 0x3FFF


_PNG_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by the colour type
_PNG_DEPTHS: Final = frozenset({1, 2, 4, 8, 16})


def _is_whole_png(content: bytes) -> bool:
    """Every chunk is there with its checksum, and what is packed in them holds all pixels."""
    try:
        chunks = list(_png_chunks(content))
        header = next(data for kind, data in chunks if kind == b"IHDR")
        width, height, depth, colour = struct.unpack_from(">IIBB", header)
    except (struct.error, StopIteration, ValueError):
        return False
    if chunks[-1][0] != b"IEND" or depth not in _PNG_DEPTHS or colour not in _PNG_SAMPLES:
        return False
    if max(width, height) > MOST_PIXELS:  # it is not shown in any case, and could be a bomb
        return True
    pixels = width * height * depth * _PNG_SAMPLES[colour] // 8
    return _unpacks_to(pixels, (data for kind, data in chunks if kind == b"IDAT"))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each chunk to the end of the picture; ValueError: one is damaged or cut."""
    at = 8
    kind = b""
    while kind != b"IEND":
        (length,) = struct.unpack_from(">I", content, at)
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, at + 8 + length)
        if checksum != zlib.crc32(data, zlib.crc32(kind)):
            raise ValueError(kind)
        yield kind, data
        at += 12 + length


def _unpacks_to(least: int, packed: Iterator[bytes]) -> bool:
    """Whether so many bytes come out of a zlib stream; no more than that is unpacked, and little of it at a time."""
    stream = zlib.decompressobj()
    try:
        for data in packed:
            while least > 0 and data:
                least -= len(stream.decompress(data, UNPACKED_BYTES))
                data = stream.unconsumed_tail
        while least > 0 and (rest := stream.decompress(b"", UNPACKED_BYTES)):
            least -= len(rest)
    except zlib.error:
        return False
    return least <= 0


# A JPEG may have something behind its end; a thumbnail's own end stands in its first half.
_FORMATS: Final[tuple[tuple[bytes, str, Callable[[bytes], tuple[int, int]], Callable[[bytes], bool]], ...]] = (
    (b"\x89PNG\r\n\x1a\n", "image/png", _png_size, _is_whole_png),
    (b"\xff\xd8\xff", "image/jpeg", _jpeg_size, lambda content: b"\xff\xd9" in content[len(content) // 2 :]),
    (b"GIF87a", "image/gif", _gif_size, lambda content: content.rstrip(b"\0").endswith(b";")),
    (b"GIF89a", "image/gif", _gif_size, lambda content: content.rstrip(b"\0").endswith(b";")),
    (b"RIFF", "image/webp", _webp_size, lambda content: int.from_bytes(content[4:8], "little") + 8 <= len(content)),
)
