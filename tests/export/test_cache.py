import pytest
import torch

from mmedge.backends import _cache
from mmedge.core.ports import CacheShape
from mmedge.export.cache import FixedCache, GrowingCache, empty_cache, make_cache

SHAPE = CacheShape(layers=2, heads=3, head_dim=4, capacity=8)


def pair(length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 3, length, 4, generator=generator), torch.randn(1, 3, length, 4, generator=generator)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.softmax(query @ key.transpose(-2, -1) + bias, -1) @ value


@pytest.mark.parametrize("lengths", [(3, 1, 1, 1), (1, 1), (8,), (2, 5)], ids=str)
def test_a_fixed_cache_gives_the_attention_of_a_growing_one(lengths):
    growing, fixed, steering = empty_cache(SHAPE), None, _cache.FixedCache(SHAPE)
    past = [torch.zeros(1, 3, 8, 4) for _ in range(4)]
    for number, length in enumerate(lengths):
        growing = GrowingCache(growing.pairs)
        steer = [torch.from_numpy(tensor) for tensor in steering.steer(length).values()]
        fixed = make_cache(SHAPE, past, steer)
        assert isinstance(fixed, FixedCache)
        for layer in range(2):
            query, new = pair(length, 100 + number)[0], pair(length, 10 * number + layer)
            want = attend(query, *growing.update(layer, *new), growing.bias(length))
            got = attend(query, *fixed.update(layer, *new), fixed.bias(length))
            torch.testing.assert_close(got, want)
        past = [part for both in fixed.pairs for part in both]
        steering.advance(length)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("lengths", [(6, 1, 1), (3, 4, 1)], ids=str)
def test_both_caches_hide_the_same_of_blocks_and_windows(lengths, strict):
    growing, steering = empty_cache(SHAPE), _cache.FixedCache(SHAPE)
    for length in lengths:
        blocks = torch.tensor([[0, 1, 1, 1, 0, 2, 2][:length]]) if length > 1 else torch.zeros(1, 1, dtype=torch.int64)
        steer = [torch.from_numpy(tensor) for tensor in steering.steer(length).values()]
        fixed = make_cache(SHAPE, [torch.zeros(1, 3, 8, 4)] * 4, steer)
        growing = GrowingCache(growing.pairs)
        options = {"blocks": blocks, "window": 2, "strict": strict}
        want, got = growing.bias(length, **options) < 0, fixed.bias(length, **options) < 0
        growing.update(0, *pair(length, 1))
        assert torch.equal(got[..., : want.shape[-1]], want)
        assert got[..., want.shape[-1] :].all()
        steering.advance(length)


@pytest.mark.parametrize(
    ("strict", "seen"),
    [
        (False, ["1....", "1111.", ".111.", ".111.", "...11"]),
        (True, ["1....", "1111.", ".111.", "..11.", "...11"]),
    ],
)
def test_tokens_of_a_block_see_each_other_beyond_a_window_that_is_not_strict(strict, seen):
    bias = empty_cache(SHAPE).bias(5, blocks=torch.tensor([[0, 1, 1, 1, 0]]), window=2, strict=strict)
    assert ["".join("." if hidden else "1" for hidden in row) for row in bias[0, 0] < 0] == seen


def test_a_fixed_cache_leaves_other_slots_alone():
    past = list(pair(8, 1)) * 2
    new = pair(2, 2)
    fixed = FixedCache([(past[0], past[1])], torch.tensor([3]), torch.zeros(1, 1, 2, 8))
    key, _ = fixed.update(0, *new)
    torch.testing.assert_close(key[:, :, 3:5], new[0])
    torch.testing.assert_close(key[:, :, [0, 1, 2, 5, 6, 7]], past[0][:, :, [0, 1, 2, 5, 6, 7]])
