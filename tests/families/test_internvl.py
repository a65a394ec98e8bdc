"""What published InternVL checkpoints vary in, against the library's own pictures and numbers."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, GotOcr2ImageProcessorPil, InternVLForConditionalGeneration
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from mmedge.core.family import Request
from mmedge.errors import ModelError
from mmedge.export.agree import TorchSession
from mmedge.families import _video, internvl

TINY = internvl.FAMILY.tiny[0]
SIZES = [(1, 300), (301, 2), (3, 5), (64, 64), (90, 200), (160, 90), (448, 449), (700, 900), (31, 97)]
"""Height and width of pictures."""


@pytest.mark.parametrize("bounds", [(1, 12), (1, 6), (2, 6), (4, 4), (3, 3), (7, 12), (5, 4)])
def test_the_grid_is_that_of_the_checkpoints_processor(bounds):
    generator = np.random.default_rng(0)
    sizes = [*SIZES, *generator.integers(1, 1200, (200, 2)).tolist()]
    for height, width in sizes:
        columns, rows = get_optimal_tiled_canvas((height, width), (32, 32), *bounds)
        assert internvl.grid_of((height, width), (32, 32), *bounds) == (rows, columns)


@pytest.mark.parametrize(
    "settings",
    [
        {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"max_patches": 1},
        {"min_patches": 3, "max_patches": 5, "resample": 2},
        {"do_resize": False, "size": {"height": 24, "width": 40}},
        {"do_normalize": False},
        {"do_rescale": False, "rescale_factor": 1},
    ],
    ids=str,
)
def test_tiles_are_those_of_the_checkpoints_processor(settings):
    theirs = GotOcr2ImageProcessorPil(**{"size": {"height": 32, "width": 32}, **settings})
    ours = {key: value for key, value in theirs.to_dict().items() if value is not None}
    generator = np.random.default_rng(1)
    for height, width in SIZES:
        picture = generator.integers(0, 256, (height, width, 3), np.uint8)
        want = theirs([Image.fromarray(picture)], crop_to_patches=True, return_tensors="np")["pixel_values"]
        got = internvl.tiles_of(picture, ours)
        assert len(got) == len(want)
        np.testing.assert_array_equal(np.concatenate(got), want)


@pytest.mark.parametrize(
    "change",
    [
        {"vision_feature_layer": -2},
        {"vision_feature_select_strategy": "full"},
        {"text_config": TINY["text_config"] | {"model_type": "qwen3_moe"}},
    ],
    ids=str,
)
def test_what_no_published_model_does_is_refused(change):
    with pytest.raises(ModelError):
        internvl.components({"model": TINY | {"downsample_ratio": 0.5} | change})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"size": {"height": 32, "width": 32}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"size": {"height": 24, "width": 40}, "resample": 2},
        {"size": {"height": 32, "width": 32}, "do_normalize": False},
        {"do_resize": False},
    ],
    ids=str,
)
def test_frames_are_those_of_the_checkpoints_processor(settings, monkeypatch):
    """One tile each, within two levels of 255: torch and Pillow scale to other bytes. Conversations are in
    `test_videos.py`."""
    spec = spec_from_file_location("_videos", Path(__file__).parent / "checkpoints" / "_videos.py")
    videos = module_from_spec(spec)
    spec.loader.exec_module(videos)
    own = videos.processor_class("internvl.video_processing_internvl", "InternVLVideoProcessor", monkeypatch)
    for count, height, width in ((1, 48, 48), (3, 31, 97), (2, 120, 50)):
        blots = np.random.default_rng(count).integers(0, 256, (count, 4, 5, 3), np.uint8)
        soft = [Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC) for each in blots]
        frames = np.stack([np.asarray(each) for each in soft])
        want = own(**settings)(videos=[frames], return_tensors="np")["pixel_values_videos"][0]
        got = _video.whole_frames({"video": settings, "image": {}}, Request(frames=tuple(frames)))
        level = 1 / 255 / (0.225 if settings.get("do_normalize", True) else 1)
        np.testing.assert_allclose(np.concatenate(got), want, rtol=0, atol=2.01 * level)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "vision"),
    [
        ({"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": False}, {"attention_bias": True}),
        ({"model_type": "qwen2", "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, {"use_qk_norm": True}),
        ({"model_type": "llama", "num_key_value_heads": 4}, {"norm_type": "rms_norm", "use_mean_pooling": False}),
        ({"model_type": "qwen2"}, {"use_absolute_position_embeddings": False}),
        ({"model_type": "qwen3"}, {"image_size": 48, "patch_size": 4}),
    ],
    ids=str,
)
def test_numbers_are_those_of_the_model(text, vision):
    config = TINY | {
        "text_config": TINY["text_config"] | text,
        "vision_config": TINY["vision_config"] | vision,
        "tie_word_embeddings": text.get("tie_word_embeddings", True),
    }
    torch.manual_seed(0)
    settings = AutoConfig.for_model(**config)
    model = InternVLForConditionalGeneration(settings).eval()
    spread(model)
    found = {part.name: part for part in internvl.components({"model": settings.to_dict()})}
    tile = np.random.default_rng(0).normal(size=found["vision"].inputs[0].shape).astype(np.float32)
    seen = TorchSession(found["vision"], model).run({"pixel_values": tile})["image_features"]
    tokens = np.array([1, 9, *[5] * len(seen), 40, 41])
    with torch.inference_mode():
        want = model(input_ids=torch.from_numpy(tokens)[None], pixel_values=torch.from_numpy(tile)).logits[0]
        rows = model.get_input_embeddings()(torch.from_numpy(tokens)[None]).numpy().copy()
    rows[0, tokens == 5] = seen
    session = TorchSession(found["decoder"], model)
    session.reset({})
    places = np.arange(len(tokens))
    feeds = {"inputs_embeds": rows, "position_ids": places[None], "logits_at": places}
    np.testing.assert_allclose(session.run(feeds)["logits"][0], want, atol=2e-5)


def spread(model):
    """What a new model has as zeros or ones is made different from place to place."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.min() == weights.max():
                weights.add_(torch.rand_like(weights) - 0.5)
