"""What is recorded of an answer, and reading it back from a stranger."""

import io
import zipfile

import numpy as np
import pytest

from mmedge.backends.replay import replay
from mmedge.core.family import Prompt, Sound
from mmedge.errors import BundleError
from mmedge.runtime.engine import Engine
from mmedge.runtime.golden import (
    LIMIT,
    MOST_ELEMENTS,
    from_bytes,
    record,
    sound_from_bytes,
    sound_to_bytes,
    thinned,
    to_bytes,
)

STOP = 3
PROMPT = Prompt({}, np.array([7, 8]), (STOP,), 32)


def engine_of(session):
    return Engine((session.graph,), {"decoder": session})


def likeliest(logits):
    return int(logits.argmax())


def test_the_logits_after_the_prompt_and_after_the_whole_answer_are_kept():
    seen = record(engine_of(replay(logits_of=[4, 5, STOP])), PROMPT)
    assert seen.tokens == (4, 5)
    assert {name: likeliest(logits) for name, logits in seen.outputs.items()} == {
        "decoder/logits": 4,
        "decoder/logits.last": STOP,
    }


def test_a_recorded_answer_is_read_whatever_the_engine_would_choose():
    session = replay(logits_of=[4, STOP, 6, 9])
    seen = record(engine_of(session), PROMPT, (10, 11, STOP))
    read = session.runs[-4:]
    assert [feeds["input_ids"].tolist() for feeds in read] == [[[7, 8]], [[10]], [[11]], [[STOP]]]
    assert [feeds["position_ids"].tolist() for feeds in read] == [[[0, 1]], [[2]], [[3]], [[4]]]
    assert seen.tokens == (4,) and likeliest(seen.outputs["decoder/logits.last"]) == 9


def test_an_empty_answer_ends_after_the_prompt():
    seen = record(engine_of(replay(logits_of=[STOP])), PROMPT)
    assert seen.tokens == () and likeliest(seen.outputs["decoder/logits.last"]) == STOP


def test_an_answer_stops_where_the_decoder_has_no_more_positions():
    seen = record(engine_of(replay(logits_of=[4] * 30)), Prompt({}, np.array([7, 8]), (STOP,), 5))
    assert seen.tokens == (4, 4, 4)
    assert len(record(engine_of(replay(logits_of=[4] * 30)), PROMPT).tokens) == LIMIT


@pytest.mark.parametrize("size", [1, MOST_ELEMENTS, MOST_ELEMENTS + 1, 10 * MOST_ELEMENTS - 1])
def test_a_long_output_is_thinned_evenly(size):
    kept = thinned(np.arange(size))
    assert kept.size <= MOST_ELEMENTS and len(set(np.diff(kept))) <= 1


def test_arrays_come_back_as_they_were():
    arrays = {"decoder/logits.last": np.eye(3, dtype=np.float32), "tokens": np.array([1, 2])}
    back = from_bytes(to_bytes(arrays), "file")
    assert back.keys() == arrays.keys() and all(np.array_equal(back[name], arrays[name]) for name in arrays)


def zipped(content: bytes, name: str = "x.npy", how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def with_header(header: str) -> bytes:
    return zipped(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())


def flagged(position: int, value: bytes) -> bytes:
    """A sound file with bytes of the central directory's only entry replaced."""
    data = bytearray(to_bytes({"x": np.zeros(2)}))
    start = data.rindex(b"PK\x01\x02") + position
    data[start : start + len(value)] = value
    return bytes(data)


def objects() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.array([{}], dtype=object))
    return file.getvalue()


ABUSES = {
    "nothing": b"",
    "no archive": b"x" * 99,
    "compressed": zipped(b"x", how=zipfile.ZIP_DEFLATED),
    "encrypted": flagged(8, b"\x01\x00"),
    "patched": flagged(8, b"\x20\x00"),
    "strongly encrypted": flagged(8, b"\x40\x00"),
    "of a newer format": flagged(6, b"\xff\x00"),
    "a wrong checksum": flagged(16, b"\0\0\0\0"),
    "no array": zipped(b"hello", "note.txt"),
    "pickled": objects(),
    "larger than any memory": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846,)}\n"),
    "larger than 64 bits": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1" + "0" * 60 + ",)}\n"),
    "a header that does not end": with_header("{'descr': '''"),
    "cut off": to_bytes({"x": np.zeros(99)})[:-9],
}


@pytest.mark.parametrize("abuse", ABUSES)
def test_anything_but_plain_arrays_is_refused(abuse):
    with pytest.raises(BundleError, match=r"`golden/0/inputs\.npz` holds no plain arrays") as refusal:
        from_bytes(ABUSES[abuse], "golden/0/inputs.npz")
    assert refusal.value.exit_code == 4


def test_a_sound_comes_back_as_it_was():
    sound = Sound(np.linspace(-1, 1, 100, dtype=np.float32), 44_100)
    again = sound_from_bytes(sound_to_bytes(sound), "sound.npz")
    assert again.rate == 44_100
    np.testing.assert_array_equal(again.samples, sound.samples)


SAMPLES = np.zeros(9, np.float32)


@pytest.mark.parametrize(
    "arrays",
    [
        {"samples": SAMPLES},
        {"rate": np.array(8_000)},
        {"samples": SAMPLES.astype(np.float64), "rate": np.array(8_000)},
        {"samples": SAMPLES[:0], "rate": np.array(8_000)},
        {"samples": SAMPLES + np.nan, "rate": np.array(8_000)},
        {"samples": SAMPLES, "rate": np.array(0)},
        {"samples": SAMPLES, "rate": np.array([1, 2])},
        {"samples": SAMPLES, "rate": np.array("fast")},
    ],
)
def test_a_strangers_sound_that_is_none_is_refused(arrays):
    with pytest.raises(BundleError, match=r"`sound\.npz` holds no sound"):
        sound_from_bytes(to_bytes(arrays), "sound.npz")
