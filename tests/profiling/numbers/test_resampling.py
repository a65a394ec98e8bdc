import numpy as np
import pytest
from scipy import stats

from mmedge.profiling.numbers.resampling import mean_interval


def test_the_interval_is_that_of_scipy_but_for_its_widening():
    values = np.random.default_rng(1).exponential(size=200)
    low, high = mean_interval(values)
    found = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(2))
    expected = found.confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_the_same_values_give_the_same_interval():
    values = np.arange(30.0)
    assert mean_interval(values) == mean_interval(values)


def test_many_values_are_resampled_in_parts():
    low, high = mean_interval(np.random.default_rng(3).standard_normal(3_000))
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(3_000), rel=0.05)


def test_one_value_is_all_there_is():
    assert mean_interval(np.array([2.0])) == (2.0, 2.0)


def test_the_true_mean_lies_in_the_interval_of_thirty_values():
    chance = np.random.default_rng(4)
    found = [mean_interval(chance.standard_normal(30)) for _ in range(300)]
    assert 0.91 <= np.mean([low <= 0 <= high for low, high in found]) <= 0.98
