"""Every wrong tensor is refused before an engine sees it, in the same words whatever the engine."""

import numpy as np
import pytest

from mmedge.errors import InputError

PIXELS, WANTED = np.zeros((1, 3, 8, 7), np.float32), np.zeros((1, 2), np.int64)
STEP = np.zeros((1, 2), np.int64)

TOWER = [
    (
        {"pixels": PIXELS.astype(np.float64)},
        "`pixels` of `tower` is float64 [1, 3, 8, 7], expected float32 [1, 3, 8, 7]",
    ),
    (
        {"pixels": PIXELS.astype(np.float16)},
        "`pixels` of `tower` is float16 [1, 3, 8, 7], expected float32 [1, 3, 8, 7]",
    ),
    ({"pixels": PIXELS.astype(np.uint8)}, "`pixels` of `tower` is uint8 [1, 3, 8, 7], expected float32 [1, 3, 8, 7]"),
    ({"pixels": PIXELS.astype(">f4")}, "`pixels` of `tower` is >f4 [1, 3, 8, 7], expected float32 [1, 3, 8, 7]"),
    ({"pixels": PIXELS[0]}, "`pixels` of `tower` is float32 [3, 8, 7], expected float32 [1, 3, 8, width]"),
    ({"pixels": PIXELS[None]}, "`pixels` of `tower` is float32 [1, 1, 3, 8, 7], expected float32 [1, 3, 8, width]"),
    ({"pixels": PIXELS.repeat(2, 0)}, "`pixels` of `tower` is float32 [2, 3, 8, 7], expected float32 [1, 3, 8, 7]"),
    ({"pixels": PIXELS[:, :1]}, "`pixels` of `tower` is float32 [1, 1, 8, 7], expected float32 [1, 3, 8, 7]"),
    ({"pixels": PIXELS.repeat(3, 1)}, "`pixels` of `tower` is float32 [1, 9, 8, 7], expected float32 [1, 3, 8, 7]"),
    ({"pixels": PIXELS[:, :, :0]}, "`pixels` of `tower` is float32 [1, 3, 0, 7], expected float32 [1, 3, 8, 7]"),
    (
        {"pixels": PIXELS.transpose(0, 2, 3, 1)},
        "`pixels` of `tower` is float32 [1, 8, 7, 3], expected float32 [1, 3, 8, 3]",
    ),
    ({"pixels": np.float32(1)}, "`pixels` of `tower` is float32 [], expected float32 [1, 3, 8, width]"),
    ({"wanted": WANTED.astype(np.int32)}, "`wanted` of `tower` is int32 [1, 2], expected int64 [1, 2]"),
    ({"wanted": WANTED.astype(np.bool_)}, "`wanted` of `tower` is bool [1, 2], expected int64 [1, 2]"),
    ({"wanted": None}, "`tower` was not given its input `wanted` int64 [1, count]"),
    ({"Wanted": WANTED}, "`tower` has no input `Wanted`"),
    ({"wanted ": WANTED, "wanted": None}, "`tower` has no input `wanted `"),
]
DECODER = [
    ({"input_ids": STEP.astype(np.uint64)}, "`input_ids` of `decoder` is uint64 [1, 2], expected int64 [1, 2]"),
    ({"input_ids": STEP[0]}, "`input_ids` of `decoder` is int64 [2], expected int64 [1, length]"),
    ({"input_ids": STEP.T}, "`input_ids` of `decoder` is int64 [2, 1], expected int64 [1, 1]"),
    ({"position_ids": STEP[:, :1]}, "`position_ids` of `decoder` is int64 [1, 1], expected int64 [1, 2]"),
    ({"position_ids": None}, "`decoder` was not given its input `position_ids` int64 [1, length]"),
    ({"input_ids": None, "position_ids": None}, "`decoder` was not given its input `input_ids` int64 [1, length]"),
    ({"past.0.key": np.zeros((1, 2, 0, 8), np.float32)}, "`decoder` has no input `past.0.key`"),
    ({"beam_idx": np.zeros(1, np.int32)}, "`decoder` has no input `beam_idx`"),
    ({"cross.0.key": np.zeros((1, 2, 5, 8), np.float32)}, "`decoder` has no input `cross.0.key`"),
]
HELD = [
    (
        {"cross.0.key": np.zeros((1, 2, 5, 8))},
        "`cross.0.key` of `decoder` is float64 [1, 2, 5, 8], expected float32 [1, 2, 5, 8]",
    ),
    (
        {"cross.0.key": np.zeros((1, 2, 5, 9), np.float32)},
        "`cross.0.key` of `decoder` is float32 [1, 2, 5, 9], expected float32 [1, 2, 5, 8]",
    ),
    (
        {"cross.1.value": np.zeros((1, 2, 6, 8), np.float32)},
        "`cross.1.value` of `decoder` is float32 [1, 2, 6, 8], expected float32 [1, 2, 5, 8]",
    ),
    ({"cross.2.key": np.zeros((1, 2, 5, 8), np.float32)}, "`decoder` has no input `cross.2.key`"),
]


def with_changes(feeds, changes):
    """``feeds`` with some tensors replaced, added, or left out (None)."""
    return {name: tensor for name, tensor in {**feeds, **changes}.items() if tensor is not None}


def check_refusal(caught, message):
    assert caught.value.exit_code == 3
    assert caught.value.message.removeprefix("input ") == message


@pytest.mark.parametrize(("changes", "message"), TOWER, ids=[message for _, message in TOWER])
def test_a_tower_refuses(changes, message, tower):
    with pytest.raises(InputError) as caught:
        tower.run(with_changes({"pixels": PIXELS, "wanted": WANTED}, changes))
    check_refusal(caught, message)


@pytest.mark.parametrize(("changes", "message"), DECODER, ids=[message for _, message in DECODER])
def test_a_decoder_refuses(changes, message, decoder, held):
    decoder.reset(held())
    with pytest.raises(InputError) as caught:
        decoder.run(with_changes({"input_ids": STEP, "position_ids": STEP}, changes))
    check_refusal(caught, message)


@pytest.mark.parametrize(("changes", "message"), HELD, ids=[message for _, message in HELD])
def test_a_decoder_refuses_to_hold(changes, message, decoder, held):
    with pytest.raises(InputError) as caught:
        decoder.reset(with_changes(held(), changes))
    check_refusal(caught, message)


def test_sizes_of_held_inputs_bind_those_that_are_fed(decoder, held):
    decoder.reset({name: tensor for name, tensor in held(source=5).items() if name != "cross.1.value"})
    feeds = {"input_ids": STEP, "position_ids": STEP, "cross.1.value": held(source=6)["cross.1.value"]}
    with pytest.raises(InputError, match=r"is float32 \[1, 2, 6, 8\], expected float32 \[1, 2, 5, 8\]"):
        decoder.run(feeds)
