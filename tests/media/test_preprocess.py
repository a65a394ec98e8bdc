from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmedge.errors import InputError, ModelError
from mmedge.media.image import center_crop, normalise, preprocess, resize

SQUARE: dict[str, Any] = {
    "image_processor_type": "BlipImageProcessor",
    "processor_class": "BlipProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": 20, "width": 28},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
CROPPED = SQUARE | {"size": {"shortest_edge": 24}, "do_center_crop": True, "crop_size": {"height": 20, "width": 28}}

SIZES = [
    *[(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (3, 3), (4, 4), (1, 4), (4, 1), (5, 7), (7, 5), (8, 8), (16, 16)],
    *[(20, 28), (28, 20), (24, 24), (23, 25), (30, 100), (100, 30), (64, 1), (1, 64), (3, 1_000), (1_000, 3)],
    *[(1, 4_000), (4_000, 1), (2, 4_000), (333, 500), (500, 333), (640, 480)],
]
"""Height and width."""


def noise(height: int = 31, width: int = 45) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_thirty_sizes_are_tried():
    assert len(set(SIZES)) == 30


@pytest.mark.parametrize("settings", [SQUARE, CROPPED], ids=["square", "cropped"])
@pytest.mark.parametrize("size", SIZES)
def test_every_shape_of_picture_becomes_what_the_tower_takes(size: tuple[int, int], settings: dict[str, Any]):
    planes = preprocess(noise(*size), settings)
    assert planes.shape == (1, 3, 20, 28) and planes.dtype == np.float32
    assert planes.flags.c_contiguous and np.isfinite(planes).all()


@pytest.mark.parametrize("size", [(1, 80_000), (80_000, 1)])
def test_a_shape_that_would_become_enormous_is_refused(size: tuple[int, int]):
    with pytest.raises(InputError, match=r"would be resized to \d+x\d+, allowed are 1 to 40000000 pixels"):
        preprocess(noise(*size), CROPPED)


class TestResize:
    @pytest.mark.parametrize("resample", list(Image.Resampling))
    def test_it_is_pillows(self, resample: Image.Resampling):
        expected = np.asarray(Image.fromarray(noise()).resize((50, 9), resample))
        assert np.array_equal(resize(noise(), 9, 50, int(resample)), expected)

    def test_it_does_not_crop_or_swap_sides(self):
        rows = np.repeat(np.arange(0, 200, 10, dtype=np.uint8)[:, None, None], 6, axis=1).repeat(3, axis=2)
        small = resize(rows, 5, 12)
        assert small.shape == (5, 12, 3) and (np.diff(small[:, 0, 0].astype(int)) > 0).all()


class TestCenterCrop:
    def test_the_middle_is_kept(self):
        assert np.array_equal(center_crop(noise(9, 12), 5, 4), noise(9, 12)[2:7, 4:8])

    def test_black_is_added_around_a_smaller_picture(self):
        cropped = center_crop(np.full((2, 9, 3), 7, np.uint8), 5, 4)
        assert cropped.shape == (5, 4, 3)
        assert cropped[:, 0, 0].tolist() == [0, 0, 7, 7, 0]


class TestNormalise:
    def test_every_byte_has_the_value_of_the_formula(self):
        pixels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
        planes = normalise(pixels, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), 1 / 255)
        for channel, (mean, std) in enumerate(((0.1, 0.5), (0.2, 0.6), (0.3, 0.7))):
            exact = (np.arange(256) / 255 - mean) / std
            assert np.abs(planes[0, channel].ravel() - exact).max() < 1e-6

    def test_the_product_is_rounded_once(self):
        pixels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
        exact = (np.arange(256) * (1 / 255)).astype(np.float32)
        assert np.array_equal(normalise(pixels, scale=1 / 255)[0, 0].ravel(), exact)

    def test_channels_become_planes(self):
        planes = normalise(noise(4, 6), scale=1)
        assert planes.shape == (1, 3, 4, 6) and np.array_equal(planes[0], noise(4, 6).transpose(2, 0, 1))

    def test_one_number_serves_all_channels(self):
        assert np.array_equal(normalise(noise(), 0.5, 0.25), normalise(noise(), [0.5] * 3, [0.25] * 3))


class TestSettings:
    @pytest.mark.parametrize("name", ["do_resize", "do_rescale", "do_normalize"])
    def test_steps_have_to_be_said(self, name: str):
        with pytest.raises(ModelError, match=f"missing required field `{name}`"):
            preprocess(noise(), {key: value for key, value in SQUARE.items() if key != name})

    @pytest.mark.parametrize("name", ["image_mean", "image_std"])
    def test_normalising_needs_its_numbers(self, name: str):
        with pytest.raises(ModelError, match="without saying"):
            preprocess(noise(), {key: value for key, value in SQUARE.items() if key != name})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("do_pad", True),
            ("size_divisor", 32),
            ("do_image_splitting", True),
            ("do_flip_channel_order", True),
            ("max_image_size", {"longest_edge": 364}),
            ("do_thumbnail", True),
            ("crop_pct", 0.9),
        ],
    )
    def test_what_cannot_be_honoured_is_refused(self, name: str, value: object):
        with pytest.raises(ModelError) as caught:
            preprocess(noise(), SQUARE | {name: value})
        assert caught.value.message == f"the picture setting `{name}` = {value!r} is not supported"

    @pytest.mark.parametrize("value", [False, None])
    def test_what_is_switched_off_is_no_obstacle(self, value: bool | None):
        assert np.array_equal(preprocess(noise(), SQUARE | {"do_pad": value}), preprocess(noise(), SQUARE))

    @pytest.mark.parametrize(
        "change",
        [
            {"size": {"longest_edge": 20}},
            {"size": {"height": 20}},
            {"size": None},
            {"size": {"height": 0, "width": 5}},
            {"size": {"height": 20, "width": 70_000}},
            {"size": "large"},
            {"size": 20},
            {"resample": 9},
            {"resample": "bicubic"},
            {"do_resize": "yes"},
            {"image_mean": [0.5, 0.5]},
            {"image_std": [0.5, 0.5, 0.0]},
            {"image_std": 0},
            {"image_std": float("nan")},
            {"do_center_crop": True},
            {"do_center_crop": True, "crop_size": {"shortest_edge": 3}},
        ],
        ids=str,
    )
    def test_settings_that_make_no_sense_are_refused(self, change: dict[str, Any]):
        with pytest.raises(ModelError, match="picture setting"):
            preprocess(noise(), SQUARE | change)

    def test_a_bare_size_follows_default_to_square(self):
        square = preprocess(noise(), SQUARE | {"size": 20, "default_to_square": True})
        edge = preprocess(noise(), SQUARE | {"size": 20, "default_to_square": False})
        assert square.shape == (1, 3, 20, 20) and edge.shape == (1, 3, 20, 29)

    def test_the_other_edge_is_rounded_down(self):
        assert preprocess(noise(31, 45), SQUARE | {"size": {"shortest_edge": 22}}).shape == (1, 3, 22, 31)
        assert preprocess(noise(46, 31), SQUARE | {"size": {"shortest_edge": 22}}).shape == (1, 3, 32, 22)

    def test_steps_that_are_off_are_left_out(self):
        off = {"do_resize": False, "do_rescale": False, "do_normalize": False}
        planes = preprocess(noise(), SQUARE | off)
        assert planes.dtype == np.float32 and np.array_equal(planes[0], noise().transpose(2, 0, 1))
