"""What an MP3 holds is counted by its frames, whatever its first ones let the library guess."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from mmedge.errors import InputError
from mmedge.media.audio import decode_sound
from mmedge.media.mpeg import Broken, frames_of

NAME = "bell.mp3"
DELAY = 529
"""Samples that every decoder of layer III is late by."""
ID3 = b"ID3\4\0\0" + bytes((0, 0, 1, 2)) + b"\xff\xfb\x90\x00" + bytes(126)
FOOTED = b"ID3\4\0\x10" + bytes((0, 0, 0, 5)) + b"hello" + b"3DI\4\0\x10" + bytes((0, 0, 0, 5))
APE = b"APETAGEX" + struct.pack("<IIIIQ", 2000, 37, 0, 0, 0)
TAGS = {
    "ID3v2": ID3,
    "ID3v2 with a footer": FOOTED,
    "ID3v1": b"TAG" + b"a" * 125,
    "APE": APE[:20] + struct.pack("<IQ", 1 << 31 | 1 << 29, 0) + b"x" * 5 + APE,
    "zeros": bytes(300),
}


def made(rate: int = 48_000, channels: int = 1, seconds: float = 6.0) -> bytes:
    """A tone, then noise: the first frames of its varying bitrate say little of the others."""
    times = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.2, len(times))
    samples = np.where(times < seconds / 3, 0.3 * np.sin(2 * np.pi * 440 * times), noise)
    file = io.BytesIO()
    how = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.2}
    with soundfile.SoundFile(file, "w", rate, channels, **how) as sound:
        sound.write(np.stack([samples] * channels, 1))
    return file.getvalue()


def parts(data: bytes) -> tuple[bytes, bytes]:
    """The frame of the index, and those after it."""
    bitrates = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    assert data[:2] == b"\xff\xfb"
    length = 144_000 * bitrates[data[2] >> 4] // 48_000 + (data[2] >> 1 & 1)
    return data[:length], data[length:]


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        decode_sound(data, NAME)
    assert caught.value.hint and NAME in caught.value.message
    return caught.value.message


WHOLE = made()
INDEX, SOUNDING = parts(WHOLE)
FRAMES = 251


def test_without_an_index_all_frames_are_read():
    samples = decode_sound(SOUNDING, NAME).samples
    assert len(samples) == FRAMES * 1152 - DELAY
    known = decode_sound(WHOLE, NAME).samples
    late = int(np.argmax(np.correlate(samples[250_000:260_000], known[250_000:258_000], "valid")))
    np.testing.assert_allclose(samples[late : late + len(known)][200_000:280_000], known[200_000:280_000], atol=1e-4)


def test_with_an_index_the_ends_that_it_names_are_dropped():
    assert len(decode_sound(WHOLE, NAME).samples) == 6 * 48_000
    assert frames_of(WHOLE).data == WHOLE


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_rate_is_read_whole_when_two_are_put_together(rate, channels):
    data = made(rate, channels, 2.0)
    once = frames_of(data).data
    assert once == data
    twice = decode_sound(data + data, NAME)
    assert twice.rate == rate and 4 * rate <= len(twice.samples) < 4 * rate + 8 * 1152


def test_from_the_middle_of_a_stream_all_frames_are_read():
    first, rest = parts(SOUNDING)
    assert len(decode_sound(rest, NAME).samples) == (FRAMES - 1) * 1152 - DELAY and first


@pytest.mark.parametrize("data", [WHOLE, SOUNDING], ids=["index", "no index"])
@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_tags_are_no_sound_wherever_they_are(data, tag):
    alone = decode_sound(data, NAME).samples
    np.testing.assert_array_equal(decode_sound(data + tag, NAME).samples, alone)
    np.testing.assert_array_equal(decode_sound(ID3 + tag + data, NAME).samples, alone)
    assert len(decode_sound(data + tag + SOUNDING, NAME).samples) == 2 * FRAMES * 1152 - DELAY


@pytest.mark.parametrize("end", [b"LYRICSBEGIN words LYRICSEND", b"\xfe", b"\r\n"])
def test_anything_may_end_a_file_behind_its_last_frame(end):
    np.testing.assert_array_equal(decode_sound(WHOLE + end, NAME).samples, decode_sound(WHOLE, NAME).samples)


@pytest.mark.parametrize("left", [1, 2, 3, 4, 100])
def test_a_last_frame_that_is_not_whole_is_refused(left):
    first, _ = parts(SOUNDING)
    assert "cut off: its last frame has" in refused(SOUNDING + first[:left])


def test_fewer_frames_than_the_index_says_are_refused():
    first, _ = parts(SOUNDING)
    assert f"cut off: it has 1 frames of {FRAMES}" in refused(INDEX + first)
    assert f"cut off: it has {FRAMES + 1} frames of {2 * FRAMES}" in refused(WHOLE + INDEX + first)


@pytest.mark.parametrize("data", [WHOLE, SOUNDING], ids=["index", "no index"])
def test_a_frame_that_was_spoiled_is_not_left_out(data):
    first, _ = parts(data)
    spoiled = data[: len(first)] + b"x" + data[len(first) + 1 :]
    assert f"damaged: at byte {len(first)} there is neither a frame nor a tag" in refused(spoiled)


def test_a_change_of_the_rate_or_of_the_channels_is_refused():
    for other in (made(44_100, seconds=0.5), made(channels=2, seconds=0.5)):
        assert f"from byte {len(WHOLE)} it has another rate or number of channels" in refused(WHOLE + other)


@pytest.mark.parametrize("data", [b"\xff\xfb", b"\xff\xfb\x00\x00" + bytes(400), ID3[:40], ID3 + b"words"])
def test_without_a_frame_it_is_refused(data):
    with pytest.raises(Broken, match="cut off"):
        frames_of(data)
    refused(data)
