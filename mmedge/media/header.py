"""What a picture file says of itself: its kind, canvas and frames, read without decoding or allocating anything.

Pillow opens JPEG and BMP lazily, but while opening a WebP or a GIF it allocates whole canvases, it decides on the size
of a PNG by whichever header chunk comes last, accepts a PNG that ends before its last chunk, and takes half a second to
count the frames of a long GIF. So these three are read here before Pillow sees them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from msgspec import Struct

MAGIC = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "WebP": (b"RIFF",),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
}


class Header(Struct, frozen=True):
    """Canvas in pixels and number of frames."""

    width: int
    height: int
    frames: int


def sniff(data: bytes) -> str | None:
    """The kind of picture by its first bytes, whatever the file is called; None if mmedge does not read it."""
    kind = next((kind for kind, starts in MAGIC.items() if data.startswith(starts)), None)
    return None if kind == "WebP" and data[8:12] != b"WEBP" else kind


def read_header(data: bytes, kind: str) -> Header | None:
    """Canvas and frames of a PNG, GIF or WebP; None for kinds that Pillow opens without allocating.

    Raises:
        EOFError, ValueError, IndexError, struct.error: the file ends early or contradicts itself.
    """
    readers = {"PNG": _png, "GIF": _gif, "WebP": _webp}
    return readers[kind](data) if kind in readers else None


def _png(data: bytes) -> Header:
    chunks = list(_png_chunks(data))
    if chunks.count(b"IHDR") != 1 or chunks[0] != b"IHDR" or chunks[-1] != b"IEND" or b"IDAT" not in chunks:
        raise ValueError("chunks are missing, repeated or out of order")
    frames = chunks.count(b"fcTL") if b"acTL" in chunks else 0
    if frames and chunks.index(b"IDAT") < chunks.index(b"fcTL"):
        frames += 1  # the still picture for readers without animation comes before the first frame
    width, height = struct.unpack_from(">II", data, 16)
    return Header(width, height, max(1, frames))


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """Names of the chunks up to the last one; each with its checksum has to be inside the file."""
    position, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if position > len(data):
            raise EOFError("a chunk is cut off")
        yield name


def _gif(data: bytes) -> Header:
    """The canvas is the logical screen, enlarged by Pillow where the first frame reaches over its edge."""
    width, height = struct.unpack_from("<HH", data, 6)
    frames = 0
    for right, bottom in _gif_frames(data):
        if not frames:
            width, height = max(width, right), max(height, bottom)
        frames += 1
    return Header(width, height, frames)


def _gif_frames(data: bytes) -> Iterator[tuple[int, int]]:
    """Right and bottom edge of each frame, walking from block to block up to the trailer."""
    position = 13 + _colour_table(data[10])
    while (introducer := data[position]) != 0x3B:
        position += 1
        if introducer == 0x21:
            position = _skip_blocks(data, position + 1)
        elif introducer == 0x2C:
            left, top, width, height, flags = struct.unpack_from("<HHHHB", data, position)
            yield left + width, top + height
            position = _skip_blocks(data, position + 9 + _colour_table(flags) + 1)


def _colour_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_blocks(data: bytes, position: int) -> int:
    while length := data[position]:
        position += 1 + length
    return position + 1


def _webp(data: bytes) -> Header:
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise EOFError("the file is shorter than it says")
    name, first = data[12:16], data[20:30]
    if name == b"VP8X":
        width, height = (int.from_bytes(first[start : start + 3], "little") + 1 for start in (4, 7))
        return Header(width, height, max(1, _webp_chunks(data).count(b"ANMF")))
    if name == b"VP8L":
        bits = int.from_bytes(first[1:5], "little")
        return Header((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1)
    width, height = struct.unpack_from("<HH", first, 6)
    return Header(width & 0x3FFF, height & 0x3FFF, 1)


def _webp_chunks(data: bytes) -> list[bytes]:
    position, names = 12, []
    while position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        names.append(name)
        position += 8 + length + (length & 1)
    return names
