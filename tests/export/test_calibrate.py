"""Recording what graphs are really fed, and the calibration data that must not pass."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmedge.core.samples import Sample
from mmedge.errors import InputError
from mmedge.export.calibrate import Recorder, record
from mmedge.media.image import decode_picture, read_picture

EIGHT = [Sample(f"sample {index}", Path(f"{index}.png")) for index in range(8)]


@pytest.fixture
def tower_recorder(graphs, sessions, tmp_path):
    return Recorder(sessions.tower, graphs.tower, tmp_path)


def test_a_tower_is_recorded_as_it_is_fed(tower_recorder, pictures):
    for feeds in pictures:
        tower_recorder.run(feeds)
    recording = tower_recorder.recording()
    assert len(recording) == len(pictures)
    for kept, fed in zip(recording, pictures, strict=True):
        np.testing.assert_array_equal(kept["pixels"], fed["pixels"])


def test_recording_changes_no_output(tower_recorder, sessions, pictures):
    recorded, plain = tower_recorder.run(pictures[0]), sessions.tower.run(pictures[0])
    assert all(np.array_equal(recorded[name], plain[name]) for name in ("key", "value"))


def test_a_decoder_is_recorded_as_one_run_an_answer_that_computes_the_same(graphs, sessions, decoder, tmp_path):
    recorder = Recorder(sessions.decoder, graphs.decoder, tmp_path)
    held = {name: np.full((1, 2, 16, 32), 0.5, np.float32) for name in ("key", "value")}
    for tokens in ([[1, 2, 3], [4], [5]], [[7], [8]]):
        recorder.reset(held)
        position = 0
        for step in tokens:
            positions = np.arange(position, position + len(step))[None]
            logits = recorder.run({"input_ids": np.array([step]), "position_ids": positions})["logits"]
            position += len(step)
    first, second = recorder.recording()
    assert first["input_ids"].tolist() == [[1, 2, 3, 4, 5]]
    assert second["position_ids"].tolist() == [[0, 1]]
    assert second["past.0.key"].shape == (1, 2, 0, 32)
    import onnxruntime

    whole = onnxruntime.InferenceSession(decoder).run(["logits"], second)[0]
    np.testing.assert_allclose(whole, logits, atol=1e-5)


def test_a_value_that_is_not_finite_is_refused_with_the_sample_and_the_input(tower_recorder, pictures):
    tower_recorder.sample = "cat.png"
    for wrong in (np.nan, np.inf, -np.inf):
        pictures[0]["pixels"][0, 1, 2, 3] = wrong
        with pytest.raises(
            InputError, match=rf"sample `cat.png`: input `pixels` of `tower` has the value {wrong}"
        ) as caught:
            tower_recorder.run(pictures[0])
        assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "wrong", [np.zeros((1, 3, 32, 32)), np.zeros((1, 3, 32, 31), np.float32)], ids=["dtype", "shape"]
)
def test_a_wrong_dtype_or_shape_is_refused_with_the_sample_and_the_input(tower_recorder, wrong):
    tower_recorder.sample = "cat.png"
    with pytest.raises(
        InputError, match=r"sample `cat.png`: input `pixels` of `tower` is .*, expected float32 \[1, 3, 32, 32\]"
    ):
        tower_recorder.run({"pixels": wrong})


def test_a_channel_that_never_varies_is_doubted(tower_recorder, pictures):
    for feeds in pictures:
        feeds["pixels"][:, 2] = 0.25
        tower_recorder.run(feeds)
    (doubt,) = tower_recorder.doubts()
    assert doubt.startswith("channel 2 of `pixels` of `tower` is 0.25 in every calibration sample")


def test_no_more_is_recorded_than_the_disk_may_hold(graphs, sessions, pictures, tmp_path):
    recorder = Recorder(sessions.tower, graphs.tower, tmp_path, most_bytes=3 * pictures[0]["pixels"].nbytes)
    for feeds in pictures:
        recorder.run(feeds)
    assert len(recorder.recording()) == 3
    assert recorder.doubts() == ("`tower` is calibrated on 3 of 16 answers, the limit is 0 MiB",)


def test_each_sample_is_read_and_answered(tower_recorder, pictures):
    recorded, doubts = record(
        EIGHT,
        {"tower": tower_recorder},
        read=lambda sample: pictures[int(sample.image.stem)],
        answer=tower_recorder.run,
    )
    assert [feeds["pixels"][0, 0, 0, 0] for feeds in recorded["tower"]] == [
        feeds["pixels"][0, 0, 0, 0] for feeds in pictures[:8]
    ]
    assert doubts == ()


def test_no_samples_are_refused(tower_recorder):
    with pytest.raises(InputError, match="calibration has no samples"):
        record([], {"tower": tower_recorder}, read=str, answer=print)


def test_fewer_than_eight_samples_are_doubted(tower_recorder, pictures):
    _, doubts = record(EIGHT[:1], {"tower": tower_recorder}, read=lambda sample: pictures[0], answer=tower_recorder.run)
    assert any("calibration has 1 samples" in doubt for doubt in doubts)


@pytest.fixture
def folder(tmp_path):
    """Sixteen pictures, one of them damaged."""
    for index in range(16):
        Image.new("RGB", (32, 32), (index * 16, 0, 255 - index)).save(tmp_path / f"{index}.png")
    (tmp_path / "11.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    return [Sample(f"{index}.png", tmp_path / f"{index}.png") for index in range(16)]


def _pixels(sample):
    pixels = decode_picture(read_picture(sample.image), sample.id).pixels
    return {"pixels": (pixels.astype(np.float32) / 255).transpose(2, 0, 1)[None]}


def test_an_unreadable_picture_ends_the_export(folder, tower_recorder):
    with pytest.raises(InputError, match=r"calibration sample `11\.png`: ") as caught:
        record(folder, {"tower": tower_recorder}, read=_pixels, answer=tower_recorder.run)
    assert caught.value.exit_code == 3


def test_an_unreadable_picture_is_skipped_and_told_where_a_share_may_be(folder, tower_recorder):
    recorded, doubts = record(folder, {"tower": tower_recorder}, read=_pixels, answer=tower_recorder.run, skip_bad=0.1)
    assert len(recorded["tower"]) == 15
    assert any(doubt.startswith("1 of 16 calibration samples were skipped: ") for doubt in doubts)


def test_more_unreadable_pictures_than_the_share_end_the_export(folder, tower_recorder):
    folder[3].image.write_bytes(b"")
    with pytest.raises(InputError, match=r"calibration sample `11\.png`: "):
        record(folder, {"tower": tower_recorder}, read=_pixels, answer=tower_recorder.run, skip_bad=0.1)
