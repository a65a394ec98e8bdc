"""What the Qwen models that see are told about pictures, against `transformers`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_window_index

from mmedge.core import find
from mmedge.core.family import Request
from mmedge.core.ports import Span
from mmedge.errors import InputError
from mmedge.families import _qwen_vl as qwen
from mmedge.families import qwen2_5_vl, qwen3_vl

WORD, IMAGE = 1, 5
SIDES = st.integers(1, 4000)


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def model(request):
    tiny = find.family(request.param).tiny[0]
    return getattr(transformers, tiny["architectures"][0])(AutoConfig.for_model(**tiny)).model


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


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_windows_are_those_of_the_model(rows, columns, side):
    order, ends = get_vision_window_index(torch.tensor([[1, 2 * rows, 2 * columns]]), 2, side * 28, 14)
    together = np.split(order.numpy(), ends[1:-1].numpy() // 4)
    groups, slots = qwen2_5_vl.windows(rows, columns, side)
    assert [sorted(window[window >= 0]) for window in groups] == [sorted(window) for window in together]
    np.testing.assert_array_equal(groups.reshape(-1)[slots], np.arange(rows * columns))
    many = rows * columns
    span = qwen2_5_vl.windows_span(Span(many, many, many), side)
    assert span.smallest <= len(groups) <= span.largest
    assert span.smallest <= span.usual <= span.largest


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 48))
def test_learned_positions_are_mixed_bit_for_bit_as_the_model_does(rows, columns, side):
    sizes = torch.tensor([[1, 2 * rows, 2 * columns]])
    want = get_vision_interpolation_indices_and_weights(sizes, side, "bilinear", True, 2)
    for ours, theirs in zip(qwen3_vl.corners(rows, columns, 2, side), want, strict=True):
        np.testing.assert_array_equal(ours.reshape(-1, 4), theirs.numpy())
        assert str(ours.dtype) in str(theirs.dtype)


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
