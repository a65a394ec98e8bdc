"""The pictures of ALIGN, against the processor of `transformers`."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
from transformers import EfficientNetImageProcessorPil

from mmedge.errors import ModelError
from mmedge.families.align import FAMILY, plain_settings
from mmedge.media.image import preprocess

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.mark.parametrize(("offset", "normal", "again", "cut"), [*product([False, True], repeat=4)])
def test_whatever_is_set_pictures_are_those_of_the_processor(offset, normal, again, cut):
    processor = EfficientNetImageProcessorPil(
        size={"height": 30, "width": 34},
        crop_size={"height": 24, "width": 26},
        image_mean=[0.4, 0.5, 0.6],
        image_std=[0.2, 0.3, 0.5],
        rescale_factor=1 / 127.5 if offset else 1 / 255,
        rescale_offset=offset,
        do_normalize=normal,
        include_top=again,
        do_center_crop=cut,
    )
    wanted = processor(PICTURE, input_data_format="channels_last", return_tensors="np")["pixel_values"]
    made = json.loads(processor.to_json_string())
    image = {key: value for key, value in made.items() if value is not None}
    assert np.abs(preprocess(PICTURE, plain_settings(image)) - wanted).max() < 1e-5


def test_pictures_of_varying_size_are_refused():
    config = {"model": FAMILY.tiny[0], "image": {"size": {"shortest_edge": 30}}}
    with pytest.raises(ModelError, match=r"`size` = .* is not supported"):
        FAMILY.components(config)
