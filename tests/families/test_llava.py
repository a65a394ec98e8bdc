"""What LLaVA checkpoints vary in: the tower, what of it is read, and how pictures are made square."""

from __future__ import annotations

import numpy as np
import pytest

from mmedge.core.family import Request
from mmedge.errors import InputError, ModelError
from mmedge.families.llava import FAMILY, rows_of_a_picture, squared


def config(tower: str = "clip_vision_model", strategy: str = "default") -> dict:
    """Of LLaVA 1.5, as far as it is read here."""
    vision = {"model_type": tower, "image_size": 336, "patch_size": 14}
    return {"model": {"vision_config": vision, "vision_feature_select_strategy": strategy}}


@pytest.mark.parametrize(
    ("tower", "strategy", "rows"),
    [
        ("clip_vision_model", "default", 576),
        ("clip_vision_model", "full", 577),
        ("siglip_vision_model", "full", 576),
        ("siglip_vision_model", "default", 575),
    ],
)
def test_a_picture_is_as_many_rows_as_the_checkpoint_selects(tower, strategy, rows):
    assert rows_of_a_picture(config(tower, strategy)) == rows


def test_another_tower_is_refused_by_name():
    with pytest.raises(ModelError, match="vision tower `pixtral`") as refused:
        rows_of_a_picture(config("pixtral"))
    assert "clip_vision_model" in refused.value.hint


def test_a_video_is_refused():
    with pytest.raises(InputError, match="not at videos"):
        FAMILY.prepare({}, None, Request(text="a", frames=(np.zeros((4, 4, 3), np.uint8),)))


@pytest.mark.parametrize(("height", "width"), [(5, 8), (8, 5), (7, 8), (8, 8), (1, 9)])
def test_a_picture_is_made_square_as_the_processor_does(height, width):
    from transformers import LlavaImageProcessorPil

    processor = LlavaImageProcessorPil()
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    colour = tuple(int(value * 255) for value in processor.image_mean)
    want = processor.pad_to_square(picture.transpose(2, 0, 1), colour).transpose(1, 2, 0)
    np.testing.assert_array_equal(squared(picture, processor.image_mean), want)
