"""What published Idefics3 checkpoints vary in, against the library's own pictures, tokens and numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil

from mmedge.export.agree import TorchSession
from mmedge.families import idefics3, smolvlm

TINY = idefics3.FAMILY.tiny[0]
SIZES = [(1, 300), (301, 2), (3, 5), (64, 64), (90, 200), (160, 90), (113, 114), (115, 114), (300, 400), (31, 97)]
"""Height and width of pictures."""


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"longest_edge": 114}, "max_image_size": {"longest_edge": 38}},
        {"size": {"longest_edge": 100}, "max_image_size": {"longest_edge": 32}, "resample": 3},
        {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}},
        {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 32}, "do_image_splitting": False},
        {"size": {"height": 60, "width": 70}, "max_image_size": {"longest_edge": 32}},
        {"do_resize": False, "max_image_size": {"longest_edge": 64}},
        {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}, "image_mean": [0.4, 0.5, 0.6]},
    ],
    ids=str,
)
def test_tiles_are_those_of_the_checkpoints_processor(settings):
    theirs = Idefics3ImageProcessorPil(**settings)
    ours = {key: value for key, value in theirs.to_dict().items() if value is not None}
    generator = np.random.default_rng(1)
    for height, width in SIZES:
        picture = generator.integers(0, 256, (height, width, 3), np.uint8)
        want = theirs([[Image.fromarray(picture)]], return_tensors="np", return_row_col_info=True)
        got, rows, columns = smolvlm.tiles_of(picture, ours)
        assert [[rows], [columns]] == [want["rows"][0], want["cols"][0]]
        assert len(got) == len(want["pixel_values"][0])
        np.testing.assert_array_equal(np.concatenate(got), want["pixel_values"][0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "patch", "scale"), [(364, 14, 2), (512, 16, 4), (384, 14, 3), (1536, 64, 4), (196, 14, 7)]
)
def test_a_tile_is_seen_as_the_model_sees_it(side, patch, scale):
    """Sizes of published checkpoints and others whose patches do not fill the tile or lie at rounded fractions."""
    vision = TINY["vision_config"] | {"image_size": side, "patch_size": patch, "num_hidden_layers": 1}
    settings = AutoConfig.for_model(**TINY | {"vision_config": vision, "scale_factor": scale})
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(settings).eval()
    see = smolvlm.components({"model": settings.to_dict()})[0]
    tile = np.random.default_rng(0).normal(size=see.inputs[0].shape).astype(np.float32)
    with torch.inference_mode():
        want = model.get_image_features(torch.from_numpy(tile)[None]).pooler_output[0]
    np.testing.assert_allclose(TorchSession(see, model).run({"pixel_values": tile})["image_features"], want, atol=2e-5)
