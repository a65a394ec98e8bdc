"""Frames and times of videos as SmolVLM's own processors make them; conversations are in `test_videos.py`."""

from __future__ import annotations

from copy import deepcopy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from transformers import SmolVLMProcessor
from transformers.models.smolvlm.video_processing_smolvlm import get_resize_output_image_size
from transformers.video_utils import VideoMetadata

from mmedge.core.family import Request
from mmedge.errors import InputError
from mmedge.families import smolvlm

CONFIG = {
    "model": {"vision_config": {"image_size": 32, "patch_size": 8}, "scale_factor": 2},
    "text": {"image_token": "<image>"},
    "processor": {},
}


@pytest.fixture
def video_processor(monkeypatch):
    """The checkpoint's, from its settings."""
    spec = spec_from_file_location("_videos", Path(__file__).parent / "checkpoints" / "_videos.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.processor_class("smolvlm.video_processing_smolvlm", "SmolVLMVideoProcessor", monkeypatch)


def film(frames: int, height: int, width: int) -> tuple[np.ndarray, ...]:
    """Soft blots of colour that change."""
    blots = np.random.default_rng(frames).integers(0, 256, (frames, 4, 5, 3), np.uint8)
    return tuple(np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC)) for each in blots)


SMALL = {"max_image_size": {"longest_edge": 32}}


@pytest.mark.parametrize(
    "settings",
    [
        SMALL | {"size": {"longest_edge": 64}},
        SMALL | {"size": {"longest_edge": 100}, "resample": 3},
        SMALL | {"size": {"height": 40, "width": 70}},
        SMALL | {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 48}}},
        SMALL
        | {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 48}}}
        | {"size": {"longest_edge": 90}},
        SMALL | {"size": {"longest_edge": 64}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]},
        SMALL | {"size": {"longest_edge": 64}, "do_normalize": False},
        {"do_resize": False},
        {},
    ],
    ids=str,
)
def test_frames_are_those_of_the_checkpoints_processor(video_processor, settings):
    """One tile each, whatever the size, within two levels of 255: torch and Pillow scale to other bytes."""
    for frames in (film(1, 48, 48), film(3, 31, 97), film(2, 120, 50)):
        want = video_processor(**deepcopy(settings))(videos=[np.stack(frames)], return_tensors="np")["pixel_values"][0]
        got = smolvlm.frames_of({"video": settings, "image": {}}, Request(frames=frames))
        level = 1 / 255 / min(settings.get("image_std", [0.5]) if settings.get("do_normalize", True) else [1])
        np.testing.assert_allclose(np.concatenate(got), want, rtol=0, atol=2.01 * level)


def test_the_longest_edge_has_an_end():
    for height, width in ((90, 50), (50, 90), (64, 64), (3, 700), (700, 3), (1, 4000)):
        for longest in (4095, 4096, 5000):
            shape = SimpleNamespace(size=lambda shape=(height, width): shape)
            want = get_resize_output_image_size(shape, longest)
            edge = {"longest_edge": min(longest, smolvlm.LARGEST_SIDE)}
            assert smolvlm._scaled(np.zeros((height, width, 3)), edge) == want


@pytest.mark.parametrize(
    "seconds",
    [(), (0.0,), (0.2, 1.9, 3.4), (59.999, 60.0, 119.5), (3599.0, 3600.0, 6000.5), (90_000.0,), tuple(range(101))],
    ids=lambda seconds: f"{len(seconds)} to {max(seconds, default=None)}",
)
def test_a_video_is_told_as_the_checkpoints_processor_does(seconds):
    frames = film(len(seconds) or 30, 2, 2)
    words = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>"}
    own = SimpleNamespace(image_seq_len=4, global_image_token="<global-img>", **words)
    told = SimpleNamespace(fps=24, duration=None, timestamps=seconds or [index / 24 for index in range(30)])
    made = {"pixel_values": np.zeros((1, len(frames))), "video_metadata": [told]}
    want = SmolVLMProcessor.replace_video_token(own, made, 0)
    assert smolvlm._told(CONFIG, Request(frames=frames, frame_seconds=tuple(seconds))) == want


def test_where_nobody_knows_the_times_the_processor_takes_the_same():
    own = SimpleNamespace(image_seq_len=4, image_token="", fake_image_token="", global_image_token="")
    made = {"pixel_values": np.zeros((1, 50)), "video_metadata": [VideoMetadata(50, frames_indices=range(50))]}
    want = SmolVLMProcessor.replace_video_token(own, made, 0)
    bare = CONFIG | {"processor": {"image_seq_len": 0}}
    got = smolvlm._told(bare, Request(frames=film(50, 2, 2)))
    assert got.replace("<fake_token_around_image>", "").replace("<global-img>", "") == want


def test_times_for_other_frames_are_refused():
    with pytest.raises(InputError, match="2 frames, and times for 1"):
        smolvlm._told(CONFIG, Request(frames=film(2, 2, 2), frame_seconds=(1.0,)))
