from __future__ import annotations

import io
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from mmedge.core.family import Sound
from mmedge.errors import InputError
from mmedge.media.audio import (
    LENGTH_LIMIT,
    SECONDS_LIMIT,
    check_sound,
    decode_sound,
    read_sound,
    read_stream,
    resample,
)

NAME = "bell.wav"
KINDS = ("WAV", "FLAC", "OGG", "MP3")
WIDTHS = {"PCM_U8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-24, "FLOAT": 0.0, "DOUBLE": 0.0}
"""How far rounding may move a sample."""


def tone(seconds: float = 0.5, rate: int = 48_000, hertz: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def saved(samples: np.ndarray, rate: int = 48_000, kind: str = "WAV", width: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=width)
    return file.getvalue()


def changed(data: bytes, place: int, value: bytes) -> bytes:
    return data[:place] + value + data[place + len(value) :]


def refused(data: bytes) -> str:
    """The message with which a sound is refused; it has to be fit for a user."""
    with pytest.raises(InputError) as caught:
        decode_sound(data, NAME)
    message = caught.value.message
    assert caught.value.exit_code == 3 and caught.value.hint
    assert f"`{NAME}`" in message
    assert " at 0x" not in message and " object" not in message and "\n" not in message
    assert not message.endswith(".")
    return message


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_every_rate_width_and_number_of_channels_is_the_same_sound(rate, width, channels):
    samples = tone(rate=rate)
    sound = decode_sound(saved(np.stack([samples] * channels, 1), rate, width=width), NAME)
    assert sound.rate == rate and sound.samples.dtype == np.float32
    np.testing.assert_allclose(sound.samples, samples, atol=WIDTHS[width] + 1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_read_whatever_its_name(kind):
    sound = decode_sound(saved(tone(), kind=kind), "a.txt")
    assert sound.rate == 48_000 and len(sound.samples) == len(tone())
    assert np.corrcoef(sound.samples, tone())[0, 1] > 0.99


def test_of_several_channels_it_is_the_mean():
    channels = np.stack([tone(), -tone(), tone(hertz=660), tone(hertz=1000)], 1)
    sound = decode_sound(saved(channels, width="FLOAT"), NAME)
    np.testing.assert_allclose(sound.samples, channels.mean(1), atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 96_000])
def test_a_tone_stays_the_same_tone_at_another_rate(rate):
    made = resample(Sound(tone(rate=rate), rate), 48_000)
    assert made.rate == 48_000 and made.samples.dtype == np.float32 and len(made.samples) == 24_000
    inner = slice(2_000, -2_000)
    np.testing.assert_allclose(made.samples[inner], tone()[inner], atol=1e-3)


def test_at_its_own_rate_a_sound_stays_as_it_is():
    sound = Sound(tone(), 48_000)
    assert resample(sound, 48_000) is sound


def test_of_a_single_sample_nothing_is_left_at_a_much_lower_rate():
    with pytest.raises(InputError, match="1 samples at 48000 Hz are none at 8000 Hz"):
        resample(Sound(tone()[:1], 48_000), 8_000)


@pytest.mark.parametrize("samples", [np.zeros(1000, np.float32), np.ones(1000, np.float32), tone() + 0.3, tone()[:1]])
def test_silence_clipping_an_offset_and_one_sample_are_sounds(samples):
    sound = decode_sound(saved(samples, width="FLOAT"), NAME)
    np.testing.assert_array_equal(sound.samples, samples)


@pytest.mark.parametrize("data", [b"", saved(tone()[:0]), saved(tone()[:0], kind="OGG"), saved(tone()[:0], kind="WAV")])
def test_a_sound_without_samples_is_refused(data):
    assert "empty" in refused(data) or "no samples" in refused(data)


def test_headers_alone_are_refused():
    for kind in ("WAV", "FLAC", "OGG"):
        refused(saved(tone(), kind=kind)[:44])


@pytest.mark.parametrize(
    "data", [b"hello world, no sound", b"\x89PNG\r\n\x1a\n" + bytes(40), b"RIFF\0\0\0\0WEBP", b"\xff"]
)
def test_another_kind_of_file_is_refused(data):
    assert "not a sound of a kind that mmedge reads" in refused(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_named(value):
    samples = tone()
    samples[[700, 900]] = value
    assert f"sample 700 of the sound `{NAME}` is {value}" in refused(saved(samples, width="FLOAT"))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.8, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_that_ends_before_its_end_is_refused(kind, share):
    data = saved(tone(2.0), kind=kind)
    assert "cut off" in refused(data[: int(share * len(data))])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_without_its_last_byte_is_refused(kind):
    assert "cut off" in refused(saved(tone(), kind=kind)[:-1])


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (24, 0, "a rate of 0 Hz"),
        (24, 2**31, "a rate of 2147483648 Hz"),
        (24, 2**32 - 1, "a rate of 4294967295 Hz"),
        (24, 500, "a rate of 500 Hz"),
        (40, 2**31 - 2**16 - 2, "it has 48000 bytes of 2147418110"),
        (40, 48_002, "it has 48000 bytes of 48002"),
    ],
)
def test_a_wav_that_claims_what_cannot_be_is_refused(place, value, said):
    assert said in refused(changed(saved(tone()), place, struct.pack("<I", value)))


@pytest.mark.parametrize("channels", [0, 33, 1024, 65_535])
def test_a_wav_with_no_or_very_many_channels_is_refused(channels):
    assert f"{channels} channels" in refused(changed(saved(tone()), 22, struct.pack("<H", channels)))


@pytest.mark.parametrize("file", [0, 36, 48_036, 0x7FFFF024, 2**32 - 1])
@pytest.mark.parametrize("length", [0, 0x7FFFF000, 2**31, 2**32 - 1])
def test_a_wav_that_was_written_to_a_pipe_is_read_to_its_end(file, length):
    data = saved(tone())
    piped = changed(changed(data, 4, struct.pack("<I", file)), 40, struct.pack("<I", length))
    for end in (b"", b"\x01"):
        np.testing.assert_array_equal(decode_sound(piped + end, NAME).samples, decode_sound(data, NAME).samples)


@pytest.mark.parametrize("samples", [np.zeros(1_000, np.float32), np.full(1_000, 1e-3, np.float32)])
def test_silence_in_a_wav_of_open_length_is_a_sound(samples):
    data = saved(samples)
    assert len(decode_sound(changed(data, 40, bytes(4)), NAME).samples) == 1_000


@pytest.mark.parametrize("file", [0, 62])
def test_other_parts_of_a_wav_are_no_samples(file):
    lists = struct.pack("<4sI4s4sI6s", b"LIST", 18, b"INFO", b"INAM", 6, b"hello")
    assert "no samples" in refused(changed(saved(tone()[:0]) + lists, 4, struct.pack("<I", file)))


def claiming(data: bytes, claim: int) -> bytes:
    """A FLAC of another number of samples by its header."""
    return changed(data, 21, bytes([data[21] & 0xF0 | claim >> 32]) + struct.pack(">I", claim & 0xFFFFFFFF))


@pytest.mark.parametrize("channels", [1, 2])
def test_a_flac_that_leaves_its_length_open_is_read_to_its_end(channels):
    data = saved(np.stack([tone(2.0)] * channels, 1), kind="FLAC")
    np.testing.assert_array_equal(decode_sound(claiming(data, 0), NAME).samples, decode_sound(data, NAME).samples)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_flac_of_open_length_that_ends_within_a_frame_is_refused(share):
    data = claiming(saved(tone(2.0), kind="FLAC"), 0)
    assert "cut off" in refused(data[: int(share * len(data))])


def test_a_flac_of_open_length_is_read_up_to_the_most():
    assert "1000 Hz, allowed are 1800 seconds" in refused(
        claiming(saved(np.zeros(1_000 * SECONDS_LIMIT + 1, np.float32), 1_000, kind="FLAC"), 0)
    )


def test_a_flac_that_claims_endless_samples_is_refused_before_they_are_held():
    data = saved(tone(), kind="FLAC")
    lying = claiming(data, 2**36 - 1)
    tracemalloc.start()
    try:
        assert "allowed are 1800 seconds" in refused(lying)
        assert tracemalloc.get_traced_memory()[1] < len(data) + (1 << 20)
    finally:
        tracemalloc.stop()


def test_lists_beside_the_samples_do_not_matter():
    data = saved(tone())
    lists = struct.pack("<4sI4s4sI2s", b"LIST", 14, b"INFO", b"INAM", 2, b"hi")
    np.testing.assert_array_equal(
        decode_sound(data[:36] + lists + data[36:], NAME).samples, decode_sound(data, NAME).samples
    )


def test_half_an_hour_is_the_most():
    long = saved(np.zeros(1_000 * SECONDS_LIMIT, np.float32), 1_000, kind="FLAC")
    assert len(decode_sound(long, NAME).samples) == 1_000 * SECONDS_LIMIT
    longer = saved(np.zeros(1_000 * SECONDS_LIMIT + 1, np.float32), 1_000, kind="FLAC")
    assert "1800001 samples at 1000 Hz" in refused(longer)


def test_nothing_of_a_file_that_is_too_long_is_read(tmp_path):
    path = tmp_path / NAME
    with path.open("wb") as file:
        file.truncate(LENGTH_LIMIT + 1)
    with pytest.raises(InputError, match=f"{LENGTH_LIMIT + 1} bytes long, allowed are {LENGTH_LIMIT}"):
        read_sound(path)


def test_no_more_of_an_endless_pipe_is_held_than_is_allowed():
    with open("/dev/zero", "rb") as endless, pytest.raises(InputError, match="allowed are"):
        read_stream(endless, NAME)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputError, match="is not a regular file"):
            read_sound(path)
    with pytest.raises(InputError, match="no such file"):
        read_sound(tmp_path / "nothing.wav")
    with pytest.raises(InputError, match="not a path"):
        read_sound(Path("a\0b"))


@pytest.mark.parametrize(
    ("samples", "rate", "said"),
    [
        (np.zeros(9), 16_000, "float64"),
        (np.zeros((2, 9), np.float32), 16_000, "float32"),
        ([0.0], 16_000, "list"),
        (np.zeros(0, np.float32), 16_000, "no samples"),
        (np.full(9, np.nan, np.float32), 16_000, "sample 0"),
        (np.zeros(9, np.float32), 0, "rate of 0 Hz"),
    ],
)
def test_samples_that_cannot_be_used_are_refused(samples, rate, said):
    with pytest.raises(InputError, match=said):
        check_sound(Sound(samples, rate), NAME)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_spoiled_file_is_a_sound_or_an_error_of_ours(data):
    kind = data.draw(st.sampled_from(KINDS))
    original = bytearray(saved(tone(0.05), kind=kind))
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of what can go wrong is in headers.
        place = data.draw(st.integers(0, min(len(original), 200) - 1) | st.integers(0, len(original) - 1))
        original[place] = data.draw(st.integers(0, 255))
    try:
        sound = decode_sound(bytes(original), NAME)
    except InputError as error:
        assert " at 0x" not in error.message
    else:
        assert len(sound.samples) and np.isfinite(sound.samples).all()
