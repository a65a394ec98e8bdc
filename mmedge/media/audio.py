"""Sounds: files to samples of one channel.

A file passes these limits in order, each before the next one allocates: its length, its kind by the first bytes, what
its header claims, and how much comes out while it is decoded. A file that ends before its own end is refused.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmedge.core.family import Sound
from mmedge.errors import InputError
from mmedge.media import bounded, mpeg
from mmedge.needs import needs

LENGTH_LIMIT = 25_000_000
"""Bytes of a sound file."""
SECONDS_LIMIT = 1800
SAMPLES_LIMIT = SECONDS_LIMIT * 48_000
"""Of one channel."""
RATES = (1_000, 384_000)
"""Lowest and highest number of samples a second."""
CHANNELS_LIMIT = 32

KINDS = ("WAV", "FLAC", "Ogg", "MP3")
BLOCK = 1 << 16
"""Samples of all channels that are decoded at once."""

UNKNOWN_LENGTH = 0x7FFF_0000
"""Bytes from which on the length in a WAV is none: who writes to a pipe cannot go back to it, and leaves 0x7FFFF000
(SoX), 0x80000000 (arecord) or 0xFFFFFFFF (FFmpeg)."""
UNKNOWN_SAMPLES = 2**63 - 1
"""What the library has for a FLAC that leaves their number open."""
LAST_PAGE = 4
"""Flag of the last page of an Ogg stream (https://www.rfc-editor.org/rfc/rfc3533)."""


def read_sound(path: Path) -> bytes:
    """The bytes of a sound file; nothing of an oversized one is read.

    Raises:
        InputError: it is no regular file, cannot be read, or is longer than `LENGTH_LIMIT`.
    """
    return bounded.read_file(path, "sound", LENGTH_LIMIT, _check_length)


def read_stream(stream: BinaryIO, name: str) -> bytes:
    """The bytes of a sound from a pipe, of which no more than `LENGTH_LIMIT` are held.

    Raises:
        InputError: there are more.
    """
    return bounded.read_stream(stream, name, LENGTH_LIMIT, _check_length)


def decode_sound(data: bytes, name: str) -> Sound:
    """Decode a WAV, FLAC, Ogg or MP3, whatever ``name`` ends in; of several channels the mean.

    Raises:
        InputError: naming the sound, what is wrong with it and the limit it breaks.
        BackendError: soundfile is not installed.
    """
    _check_length(len(data), name)
    kind = sniff(data)
    if kind is None:
        what = "is not a sound of a kind that mmedge reads" if data else "is empty"
        raise InputError(f"`{name}` {what}", hint=f"convert it to one of: {', '.join(KINDS)}")
    if kind == "WAV":
        data = _whole_wav(data, name)
    if kind == "Ogg" and not _is_whole_ogg(data):
        raise _cut_off(name)
    data, least = _frames(data, name) if kind == "MP3" else (data, 0)
    with needs("audio"):
        import soundfile
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            samples, rate = _decoded(file, name), int(file.samplerate)
        if len(samples) < least:
            raise _cut_off(name, f": it has {len(samples)} samples of at least {least}")
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).removeprefix("Error : ").rstrip(".").lower()
        hint = "record or fetch it again, or convert it to WAV"
        raise InputError(f"the {kind} sound `{name}` is damaged or cut off: {reason}", hint=hint) from error
    return check_sound(Sound(samples, rate), name)


def sniff(data: bytes) -> str | None:
    """The kind of sound by its first bytes, whatever the file is called; None if mmedge does not read it."""
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        return "WAV"
    if data.startswith((b"fLaC", b"OggS", b"ID3")):
        return {b"f": "FLAC", b"O": "Ogg", b"I": "MP3"}[data[:1]]
    begins_frame = len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2  # MPEG, layer III
    return "MP3" if begins_frame else None


def check_sound(sound: Sound, name: str) -> Sound:
    """
    Raises:
        InputError: it has no samples, too many, one that is no number, or a rate that no sound has.
    """
    samples = sound.samples
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 1:
        found = f"{samples.dtype} {samples.shape}" if isinstance(samples, np.ndarray) else type(samples).__name__
        raise InputError(f"the samples of `{name}` are {found}, expected float32 [length]")
    _check_claims(sound.rate, 1, len(samples), name)
    if not len(samples):
        raise InputError(f"the sound `{name}` has no samples", hint="record it again")
    finite = np.isfinite(samples)
    if not finite.all():
        first = int(np.argmin(finite))
        hint = "write it again as 16-bit samples"
        raise InputError(f"sample {first} of the sound `{name}` is {samples[first]}, not a number", hint=hint)
    return sound


def resample(sound: Sound, rate: int) -> Sound:
    """The sound at another rate, with the filter that soxr calls HQ.

    Raises:
        InputError: it is so short that nothing is left of it.
        BackendError: soxr is not installed.
    """
    if sound.rate == rate:
        return sound
    with needs("audio"):
        import soxr
    samples = np.asarray(soxr.resample(sound.samples, sound.rate, rate), np.float32)
    if not len(samples):
        hint = "record a longer one"
        raise InputError(f"{len(sound.samples)} samples at {sound.rate} Hz are none at {rate} Hz", hint=hint)
    return Sound(samples, rate)


def _decoded(file: Any, name: str) -> np.ndarray:
    """float32 ``[length]``; what a header claims is not believed before it is decoded."""
    claimed = int(file.frames)
    _check_claims(file.samplerate, file.channels, 0 if claimed == UNKNOWN_SAMPLES else claimed, name)
    if claimed == UNKNOWN_SAMPLES:
        file.seekable = lambda: False  # else a seek follows each block, which fails at an end that nobody knew
    blocks, length = [np.zeros(0, np.float32)], 0
    while len(block := file.read(BLOCK // file.channels, dtype="float32", always_2d=True)):
        blocks.append(block.mean(axis=1, dtype=np.float32) if file.channels > 1 else block[:, 0])
        length += len(block)
        _check_claims(file.samplerate, file.channels, length, name)
    if claimed not in (length, UNKNOWN_SAMPLES):
        raise _cut_off(name, f": it has {length} samples of {claimed}")
    return np.concatenate(blocks)


def _check_length(length: int, name: str) -> None:
    if length > LENGTH_LIMIT:
        raise InputError(
            f"the sound `{name}` is {length} bytes long, allowed are {LENGTH_LIMIT}",
            hint="cut it into pieces, or compress it, such as to FLAC",
        )


def _check_claims(rate: int, channels: int, length: int, name: str) -> None:
    lowest, highest = RATES
    if not lowest <= rate <= highest:
        hint = f"allowed are {lowest} to {highest}; convert it, such as to 48000 Hz"
        raise InputError(f"the sound `{name}` has a rate of {rate} Hz", hint=hint)
    if not 1 <= channels <= CHANNELS_LIMIT:
        hint = f"allowed are 1 to {CHANNELS_LIMIT}; convert it to one"
        raise InputError(f"the sound `{name}` has {channels} channels", hint=hint)
    if length > min(SAMPLES_LIMIT, SECONDS_LIMIT * rate):
        raise InputError(
            f"the sound `{name}` has {length} samples at {rate} Hz, allowed are {SECONDS_LIMIT} seconds and "
            f"{SAMPLES_LIMIT} samples",
            hint="cut it into shorter pieces",
        )


def _whole_wav(data: bytes, name: str) -> bytes:
    """The file with the length of its samples, should it not say that. The library takes a file that ends early for a
    shorter one, and says little of numbers that cannot be."""
    for kind, begin, length in _chunks(data):
        if kind == b"fmt " and length >= 16 and begin + 8 <= len(data):
            channels, rate = struct.unpack_from("<HI", data, begin + 2)
            _check_claims(rate, channels, 0, name)
        if kind == b"data" and _is_open(data, begin, length):
            return data[: begin - 4] + struct.pack("<I", len(data) - begin) + data[begin:]
        if kind == b"data" and begin + length > len(data):
            raise _cut_off(name, f": it has {len(data) - begin} bytes of {length}")
    return data


def _is_open(data: bytes, begin: int, length: int) -> bool:
    """Whether a WAV does not know the length of its samples: of none, unless other parts follow up to its end."""
    if length:
        return length >= UNKNOWN_LENGTH
    end = begin
    for name, place, size in _chunks(data, begin):
        if not name.decode("latin-1").isprintable():
            return True
        end = place + size
    return len(data) - end not in (0, 1)


def _frames(data: bytes, name: str) -> mpeg.Frames:
    try:
        return mpeg.frames_of(data)
    except mpeg.Broken as error:
        hint = "record or fetch it again, or convert it to WAV"
        raise InputError(f"the sound `{name}` is {error}", hint=hint) from error


def _chunks(data: bytes, position: int = 12) -> Iterator[tuple[bytes, int, int]]:
    """Name, begin and length of the parts of a WAV file up to its samples."""
    name = b""
    while name != b"data" and position + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, position)
        yield name, position + 8, length
        position += 8 + length + (length & 1)


def _is_whole_ogg(data: bytes) -> bool:
    """Whether its last page says so, and is whole."""
    page = data[data.rfind(b"OggS") :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & LAST_PAGE) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _cut_off(name: str, details: str = "") -> InputError:
    return InputError(f"the sound `{name}` is cut off{details}", hint="record or fetch it again")
