"""How LLaVA-OneVision cuts pictures of any size and lays out what it sees, against the model's own code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mmedge.core.family import Prompt, Request
from mmedge.errors import InputError, ModelError
from mmedge.families import _decoder_only as shared
from mmedge.families.llava_onevision import FAMILY, TILED, arrange, best_resolution, layout, tiles_of
from mmedge.media.image import preprocess

SIZES = (
    (1, 1), (1, 900), (900, 1), (384, 384), (385, 384), (64, 2000), (2000, 64), (480, 640), (768, 1024), (1080, 1920),
    (3000, 4000), (97, 61), (500, 333), (2304, 2304), (2303, 2304), (1000, 1001), (7, 3000),
)  # fmt: skip
"""Height and width."""

SIDE, PATCHES, WIDTH = 384, 27, 4
"""Of published checkpoints, but for the width."""

SIDES = range(SIDE, 7 * SIDE, SIDE)
CONFIG = {
    "model": {
        "vision_config": {"image_size": SIDE, "patch_size": 14, "model_type": "siglip_vision_model"},
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    },
    "image": {
        "size": {"height": SIDE, "width": SIDE},
        "image_grid_pinpoints": [[height, width] for height in SIDES for width in SIDES],
    },
}


def seen(count: int) -> list[np.ndarray]:
    """Rows of so many squares, and the one that ends a line."""
    generator = np.random.default_rng(count)
    squares = [generator.standard_normal((PATCHES**2, WIDTH), np.float32) for _ in range(count)]
    return [np.concatenate([square, np.full((1, WIDTH), 9, np.float32)]) for square in squares]


def arranged(squares: list[np.ndarray], size: tuple[int, int] | None) -> np.ndarray:
    looks = [{"pixel_values": np.zeros(0)} for _ in squares]
    if size:
        looks[0][TILED] = np.array(size)
    prompt = Prompt({}, np.zeros(0, np.int64), (), 1, tuple(looks))
    return arrange(CONFIG, prompt, [{shared.FEATURES: square} for square in squares])[shared.FEATURES]


@pytest.mark.parametrize("size", SIZES)
def test_rows_lie_as_the_model_puts_them(size):
    import torch
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    squares = seen(1 + int(np.prod(layout(CONFIG, size).tiles)))
    vision = SimpleNamespace(image_size=SIDE, patch_size=14)
    own = SimpleNamespace(
        config=SimpleNamespace(vision_config=vision, image_grid_pinpoints=CONFIG["image"]["image_grid_pinpoints"])
    )
    rows = torch.from_numpy(np.stack(squares)[:, :-1])
    want, _ = LlavaOnevisionModel.pack_image_features(
        own, [rows], [list(size)], torch.full((WIDTH,), 9.0), CONFIG["model"]["vision_aspect_ratio"]
    )
    np.testing.assert_allclose(arranged(squares, size), want[0].numpy(), atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_there_are_as_many_rows_as_the_processor_counts(size):
    from transformers import LlavaOnevisionProcessor

    own = SimpleNamespace(
        num_image_tokens=PATCHES**2,
        vision_aspect_ratio="anyres_max_9",
        image_processor=SimpleNamespace(image_grid_pinpoints=CONFIG["image"]["image_grid_pinpoints"]),
    )
    own._get_unpadded_features = lambda *sizes: LlavaOnevisionProcessor._get_unpadded_features(own, *sizes)
    lines, columns = layout(CONFIG, size).size
    want = LlavaOnevisionProcessor._get_number_of_features(own, *size, SIDE, SIDE)
    assert PATCHES**2 + lines * (columns + 1) == want


def test_the_size_of_the_tiles_is_the_one_that_the_processor_chooses():
    from transformers.image_processing_utils import select_best_resolution

    offered = CONFIG["image"]["image_grid_pinpoints"]
    for size in (*SIZES, *np.random.default_rng(0).integers(1, 3000, (500, 2)).tolist()):
        assert best_resolution(tuple(size), CONFIG["image"]) == select_best_resolution(size, offered)


def test_several_pictures_are_rows_of_one_square_each_with_an_end():
    squares = seen(3)
    np.testing.assert_array_equal(arranged(squares, None), np.concatenate(squares))


def test_tiles_line_up_to_the_picture():
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (88, 132, 3), np.uint8)
    settings = {
        "size": {"height": 44, "width": 44},
        "image_grid_pinpoints": [[88, 132], [132, 132]],
        "resample": 3,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": False,
    }
    _, *tiles = tiles_of(picture, settings)
    lines = [np.concatenate(tiles[first : first + 3], axis=3) for first in (0, 3)]
    whole = preprocess(picture, {"do_resize": False, "do_rescale": True, "do_normalize": False})
    np.testing.assert_array_equal(np.concatenate(lines, axis=2), whole)


def test_another_way_of_keeping_rows_is_refused_by_name():
    config = CONFIG | {"model": CONFIG["model"] | {"vision_aspect_ratio": "anyres"}}
    with pytest.raises(ModelError, match="`vision_aspect_ratio` = `anyres`"):
        layout(config, (44, 44))


def test_a_video_is_refused():
    with pytest.raises(InputError, match="not at videos"):
        FAMILY.prepare(CONFIG, None, Request(text="a", frames=(np.zeros((4, 4, 3), np.uint8),)))
