"""The parts of SigLIP 2 that are numpy on a device, against torch and `transformers`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

from mmedge.core.family import Request
from mmedge.families.siglip2 import FAMILY, patch_grid, resizing

CONFIG = {
    "model": FAMILY.tiny[0] | {"vision_config": {"num_patches": 36}},
    "image": {"patch_size": 8, "max_num_patches": 30, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
}


@pytest.mark.parametrize("most", [1, 7, 256, 1024])
def test_a_picture_is_cut_into_as_many_patches_as_by_transformers(most):
    generator = np.random.default_rng(0)
    sizes = [(1, 1), (16, 16), (1, 4000), (8000, 3), (16_384, 2_000), *generator.integers(1, 3000, (60, 2)).tolist()]
    for height, width in sizes:
        wanted = get_image_size_for_max_num_patches(height, width, 16, most)
        assert tuple(16 * side for side in patch_grid(height, width, 16, most)) == wanted


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (1, 256), (7, 33), (23, 11), (64, 1), (2, 3)])
def test_positions_are_resized_as_by_torch(rows, columns):
    table = torch.randn(16, 16, 5, generator=torch.Generator().manual_seed(0))
    # In the layout that the model has it, this version of torch resizes to a width of 1 wrongly.
    laid_out = table[None].permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(
        laid_out, size=(rows, columns), mode="bilinear", align_corners=False, antialias=True
    )
    got = np.einsum("ri,cj,ijd->drc", resizing(16, rows), resizing(16, columns), table.numpy())
    assert np.abs(got - wanted[0].numpy()).max() < 1e-5


def test_pictures_of_one_request_are_filled_up_to_the_one_with_most_patches():
    pictures = (np.zeros((8, 8, 3), np.uint8), np.zeros((10, 90, 3), np.uint8))
    alone = [FAMILY.prepare(CONFIG, None, Request((picture,))).feeds for picture in pictures]
    together = FAMILY.prepare(CONFIG, None, Request(pictures)).feeds
    for index, feeds in enumerate(alone):
        count = feeds["pixel_mask"].shape[1]
        assert together["pixel_mask"][index].tolist() == [1] * count + [0] * (together["pixel_mask"].shape[1] - count)
        for name, array in feeds.items():
            assert np.array_equal(together[name][index, :count], array[0])
