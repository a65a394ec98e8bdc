import numpy as np
import pytest

from mmedge.errors import UsageError
from mmedge.runtime.pick import greedy, sampler

LOGITS = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))


def test_greedy_takes_the_first_of_the_likeliest():
    assert greedy(np.array([1.0, 3.0, 3.0], np.float32)) == 1


def test_temperature_zero_is_greedy():
    assert sampler(0.0) is greedy


def test_draws_follow_the_probabilities():
    draw = sampler(1.0, seed=1)
    counts = np.bincount([draw(LOGITS) for _ in range(4000)], minlength=4) / 4000
    assert np.abs(counts - [0.5, 0.3, 0.15, 0.05]).max() < 0.03


def test_a_low_temperature_sharpens():
    draw = sampler(0.5, seed=1)
    counts = np.bincount([draw(LOGITS) for _ in range(4000)], minlength=4) / 4000
    squared = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    assert np.abs(counts - squared / squared.sum()).max() < 0.03


@pytest.mark.parametrize(("top_p", "nucleus"), [(0.5, {0}), (0.6, {0, 1}), (0.95, {0, 1, 2}), (1.0, {0, 1, 2, 3})])
def test_top_p_keeps_the_likeliest_that_reach_it(top_p, nucleus):
    draw = sampler(1.0, top_p, seed=3)
    assert {draw(LOGITS) for _ in range(500)} == nucleus


def test_the_same_seed_draws_the_same():
    first, second = sampler(1.0, seed=5), sampler(1.0, seed=5)
    assert [first(LOGITS) for _ in range(50)] == [second(LOGITS) for _ in range(50)]


@pytest.mark.parametrize(("temperature", "top_p"), [(-1, 1), (101, 1), (float("nan"), 1), (1, 0), (1, 1.5)])
def test_a_setting_out_of_bounds_is_refused(temperature, top_p):
    with pytest.raises(UsageError, match="it must be"):
        sampler(temperature, top_p)
