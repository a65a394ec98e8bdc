"""What the Qwen models that see are told about pictures, against `transformers`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from mmedge.core import find
from mmedge.core.family import Request
from mmedge.errors import InputError
from mmedge.families import _qwen_vl as qwen

WORD, IMAGE = 1, 5
SIDES = st.integers(1, 4000)


@pytest.fixture(scope="module")
def model():
    tiny = find.family("qwen2_vl").tiny[0]
    return Qwen2VLForConditionalGeneration(AutoConfig.for_model(**tiny)).model


@pytest.mark.parametrize(
    "grids",
    [(), ((3, 7),), ((1, 1),), ((2, 5), (9, 1), (4, 4))],
    ids=["text only", "one picture", "one row", "three pictures"],
)
def test_positions_are_those_of_the_model(model, grids):
    tokens = [WORD] * 4
    for rows, columns in grids:
        tokens += [IMAGE] * (rows * columns) + [WORD] * 3
    ids = torch.tensor([tokens])
    sizes = torch.tensor([(1, 2 * rows, 2 * columns) for rows, columns in grids]) if grids else None
    want, delta = model.get_rope_index(ids, mm_token_type_ids=(ids == IMAGE).int(), image_grid_thw=sizes)
    got = qwen.positions(np.array(tokens) == IMAGE, grids)
    np.testing.assert_array_equal(got, want)
    assert got.max() + 1 == len(tokens) + delta.item()  # where the answer goes on


def settings(least, most):
    return {"patch_size": 14, "merge_size": 2, "size": {"shortest_edge": least, "longest_edge": most}}


def config(least, most):
    return {"image": settings(least, most), "model": {"text_config": {"max_position_embeddings": 1 << 20}}}


@given(SIDES, SIDES, st.integers(1, 2000), st.integers(1, 20))
def test_a_picture_is_scaled_as_the_processor_does_to_as_many_groups_as_were_promised(height, width, least, times):
    least, most = least * 28**2, least * times * 28**2
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(InputError, match=f"{width}x{height} pixels is more than 200 times"):
            qwen.grid(height, width, settings(least, most))
        return
    rows, columns = qwen.grid(height, width, settings(least, most))
    assert (rows * 28, columns * 28) == smart_resize(height, width, 28, least, most)
    span = qwen.groups_span(config(least, most))
    assert span.smallest <= rows * columns <= span.largest
    assert span.smallest <= span.usual <= span.largest


def test_videos_are_refused():
    with pytest.raises(InputError, match="not at videos"):
        qwen.prepare({}, None, Request(text="what?", frames=(np.zeros((8, 8, 3), np.uint8),)))
