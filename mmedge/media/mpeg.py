"""The frames of an MP3. No header has to say how many there are, and the library then guesses it from the first ones.

Headers: ISO/IEC 11172-3 2.4.2.3 and 13818-3 2.4.2.3, layer III, and the halved rates known as MPEG 2.5. Tags:
https://id3.org/id3v2.4.0-structure and https://wiki.hydrogenaud.io/index.php?title=APEv2_specification.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

RATES = (44_100, 48_000, 32_000)
"""Of MPEG-1."""
HALVINGS = {3: 0, 2: 1, 0: 2}
"""How often they are halved for versions 1, 2 and 2.5, by the bits that name these."""
BITRATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
"""Of MPEG-1, thousands of bits a second, from index 1; index 0 leaves it free and 15 is none."""
LOWER_BITRATES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
"""Of the others."""
INDEX = re.compile(rb"Xing|Info")
INDEX_WITHIN = 42
"""An index follows 4 bytes of header, 2 of check and at most 32 about the coding."""
START = re.compile(rb"(?=\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef])")
ZEROS = re.compile(rb"\0+")
LONGEST_EDGE = 2 * 4095 + 529 + 1152
"""Samples which encoders may put before and after a sound for decoders to drop, and a frame."""


Form = tuple[int, int, bool]
"""What all frames share: the bits that name the version, samples a second, and whether there is one channel."""


class Broken(ValueError):
    """What is wrong, as the end of a sentence."""


class Frames(NamedTuple):
    """A sound of which the library reads every frame."""

    data: bytes
    """Frames alone, after an index of how many they are."""
    samples: int
    """That they hold at the least."""


class Header(NamedTuple):
    """What the first four bytes of a frame say."""

    form: Form
    length: int
    """Bytes of the frame."""
    samples: int


def frames_of(data: bytes) -> Frames:
    """
    Raises:
        Broken: the last frame is not whole, there are fewer than the index says, or other bytes lie between them.
    """
    frames = list(_frames(data))
    if not frames:
        raise Broken("damaged or cut off: there is no frame in it")
    indexed = [_indexed(frame) for _, frame in frames]
    sounding = [frame for (_, frame), claimed in zip(frames, indexed, strict=True) if claimed is None]
    # Of files that were put together each may have an index.
    claimed = sum(count or 0 for count in indexed)
    if claimed > len(sounding):
        raise Broken(f"cut off: it has {len(sounding)} frames of {claimed}")
    header, first = frames[0]
    # A right index also says what to drop at both ends.
    index = first if indexed[0] == len(sounding) else _index(first, len(sounding))
    return Frames(b"".join((index, *sounding)), len(sounding) * header.samples - LONGEST_EDGE)


def _frames(data: bytes) -> Iterator[tuple[Header, bytes]]:
    position, form = 0, None
    while position < len(data):
        header = _header(data, position)
        if header is None:
            position = _past_other(data, position, form)
            continue
        if form not in (None, header.form):
            raise Broken(f"put together of several: from byte {position} it has another rate or number of channels")
        if position + header.length > len(data):
            raise Broken(f"cut off: its last frame has {len(data) - position} bytes of {header.length}")
        yield header, data[position : position + header.length]
        position, form = position + header.length, header.form


def _header(data: bytes, position: int) -> Header | None:
    """None where no frame begins, or one of a free bitrate."""
    if position + 4 > len(data):
        return None
    sync, kind, coding, mode = data[position : position + 4]
    version, bitrate, rate = kind >> 3 & 3, coding >> 4, coding >> 2 & 3
    if sync != 0xFF or kind & 0xE6 != 0xE2 or version not in HALVINGS or bitrate in (0, 15) or rate == 3:
        return None
    samples, bitrates = (1152, BITRATES) if version == 3 else (576, LOWER_BITRATES)
    hertz = RATES[rate] >> HALVINGS[version]
    length = samples * 125 * bitrates[bitrate - 1] // hertz + (coding >> 1 & 1)
    return Header((version, hertz, mode >> 6 == 3), length, samples)


def _past_other(data: bytes, position: int, form: Form | None) -> int:
    """Where the tag or the zeros end that are here; without a frame behind it, anything may end a file."""
    if length := _tag(data, position):
        return position + length
    if data[position] == 0xFF and position + 4 > len(data):
        raise Broken(f"cut off: its last frame has {len(data) - position} bytes")
    headers = (_header(data, place.start()) for place in START.finditer(data, position))
    if any(header and form in (None, header.form) for header in headers):
        raise Broken(f"damaged: at byte {position} there is neither a frame nor a tag")
    return len(data)


def _tag(data: bytes, position: int) -> int:
    """Bytes of the tag or the zeros that begin here, 0 if none do."""
    head = data[position : position + 32]
    if head.startswith(b"ID3") and len(head) >= 10:
        length = sum((part & 0x7F) << shift for part, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        return length + (20 if head[5] & 0x10 else 10)
    if head.startswith(b"APETAGEX") and len(head) == 32:
        length, _, flags = struct.unpack_from("<III", head, 12)
        return int(length) + (32 if flags >> 29 & 1 else 0)
    if head.startswith(b"TAG"):
        return 128
    zeros = ZEROS.match(data, position)
    return zeros.end() - position if zeros else 0


def _indexed(frame: bytes) -> int | None:
    """How many frames an index says that follow, 0 if it leaves it open; None of a frame that is no index."""
    found = INDEX.search(frame, 0, INDEX_WITHIN)
    if not found or len(frame) < found.end() + 8:
        return None
    flags, frames = struct.unpack_from(">II", frame, found.end())
    return int(frames) if flags & 1 else 0


def _index(frame: bytes, frames: int) -> bytes:
    """A frame without a sound, of the form of another, that says how many follow."""
    _, kind, coding, mode = frame[:4]
    start = bytes((0xFF, kind | 1, coding & 0x0C | 0xE0, mode))  # no check, the highest bitrate, for the room
    header = _header(start, 0)
    assert header
    version, _, single = header.form
    about = (17 if single else 32) if version == 3 else (9 if single else 17)
    return (start + bytes(about) + b"Xing" + struct.pack(">II", 1, frames)).ljust(header.length, b"\0")
