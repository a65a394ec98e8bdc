import numpy as np
import pytest

from mmedge.core.ports import CacheShape, Port, check_feeds
from mmedge.errors import InputError

PORTS = (
    Port("pixels", "float32", (1, 3, 8, 8)),
    Port("ids", "int64", (1, "length")),
    Port("mask", "int64", (1, "length")),
)


def feeds(**replaced: np.ndarray | None) -> dict[str, np.ndarray]:
    right = {
        "pixels": np.zeros((1, 3, 8, 8), np.float32),
        "ids": np.zeros((1, 5), np.int64),
        "mask": np.zeros((1, 5), np.int64),
    }
    return {name: tensor for name, tensor in {**right, **replaced}.items() if tensor is not None}


def test_what_fits_is_let_through():
    check_feeds(PORTS, feeds(), "encoder")


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_named_size_may_be_anything_if_it_is_the_same_everywhere(length):
    ids = np.zeros((1, length), np.int64)
    check_feeds(PORTS, feeds(ids=ids, mask=ids), "encoder")


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        (
            {"pixels": np.zeros((1, 3, 8, 8))},
            "input `pixels` of `encoder` is float64 [1, 3, 8, 8], expected float32 [1, 3, 8, 8]",
        ),
        (
            {"pixels": np.zeros((1, 3, 8, 9), np.float32)},
            "input `pixels` of `encoder` is float32 [1, 3, 8, 9], expected float32 [1, 3, 8, 8]",
        ),
        (
            {"pixels": np.zeros((3, 8, 8), np.float32)},
            "input `pixels` of `encoder` is float32 [3, 8, 8], expected float32 [1, 3, 8, 8]",
        ),
        (
            {"ids": np.zeros((1, 5), np.int32)},
            "input `ids` of `encoder` is int32 [1, 5], expected int64 [1, 5]",
        ),
        (
            {"mask": np.zeros((1, 6), np.int64)},
            "input `mask` of `encoder` is int64 [1, 6], expected int64 [1, 5]",
        ),
        ({"mask": None}, "`encoder` was not given its input `mask` int64 [1, length]"),
        ({"masks": np.zeros(1)}, "`encoder` has no input `masks`"),
        ({"ids": np.zeros((), np.int64)}, "input `ids` of `encoder` is int64 [], expected int64 [1, length]"),
    ],
)
def test_a_wrong_feed_is_named_with_what_was_expected_and_given(replaced, message):
    with pytest.raises(InputError) as refused:
        check_feeds(PORTS, feeds(**replaced), "encoder")
    assert refused.value.message == message


def test_an_unknown_name_gets_the_known_ones():
    with pytest.raises(InputError) as refused:
        check_feeds(PORTS, feeds(pixel=np.zeros(1)), "encoder")
    assert refused.value.hint == "its inputs are ids, mask, pixels"


def test_a_cache_is_a_key_and_a_value_per_layer():
    cache = CacheShape(layers=2, heads=6, head_dim=32)
    assert [port.name for port in cache.past()] == ["past.0.key", "past.0.value", "past.1.key", "past.1.value"]
    assert cache.present()[3] == Port("present.1.value", "float32", (1, 6, "total", 32))


def test_an_empty_cache_fits():
    cache = CacheShape(layers=1, heads=2, head_dim=4)
    check_feeds(cache.past(), {port.name: np.zeros((1, 2, 0, 4), np.float32) for port in cache.past()}, "decoder")
