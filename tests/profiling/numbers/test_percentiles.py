import numpy as np
import pytest

from mmedge.profiling.numbers.percentiles import PERCENTILES, bound_of, samples_needed, slower_allowed

SLOWER = (0, 1, 2, 5, 10)
NEEDED = {
    0.5: (7, 11, 14, 22, 35),
    0.9: (44, 64, 81, 127, 197),
    0.95: (90, 130, 165, 259, 398),
    0.99: (459, 662, 838, 1_307, 2_010),
    0.999: (4_603, 6_636, 8_403, 13_105, 20_140),
}
"""Samples that a bound with 99 % confidence takes, by how many of them may be slower (LoadGen's own: 662)."""


@pytest.mark.parametrize("share", NEEDED)
def test_as_many_samples_are_needed_as_mlperf_asks_for(share):
    assert tuple(samples_needed(share, slower) for slower in SLOWER) == NEEDED[share]


@pytest.mark.parametrize("share", PERCENTILES.values())
def test_one_sample_less_than_needed_allows_one_slower_less(share):
    assert slower_allowed(samples_needed(share, 1), share) == 1
    assert slower_allowed(samples_needed(share, 1) - 1, share) == 0
    assert slower_allowed(samples_needed(share) - 1, share) is None
    assert slower_allowed(0, share) is None


def test_with_enough_samples_the_bound_is_one_of_them_and_lies_above_the_percentile():
    found = bound_of(np.arange(662.0), 0.99)
    assert (found.value, found.high, found.enough, found.note) == (655.0, 660.0, True, "")


def test_too_few_samples_give_their_largest_with_its_real_confidence():
    found = bound_of(np.arange(120.0), 0.99)
    assert (found.value, found.high, found.enough) == (None, 119.0, False)
    assert found.note == "n=120: bound, 70 % conf."


def test_far_too_few_samples_give_nothing():
    found = bound_of(np.arange(60.0), 0.99)
    assert (found.value, found.high) == (None, None)


def test_nothing_is_interpolated():
    values = np.random.default_rng(1).exponential(size=5_000)
    for share in PERCENTILES.values():
        found = bound_of(values, share)
        assert {found.value, found.high} <= {*values.tolist()}


@pytest.mark.parametrize(("count", "share"), [(662, 0.99), (1_000, 0.99), (64, 0.9), (130, 0.95)])
def test_the_true_percentile_lies_below_the_bound_in_99_of_100_cases(count, share):
    samples = np.random.default_rng(2).exponential(size=(2_000, count))
    true = -np.log(1 - share)
    assert np.mean([bound_of(each, share).high >= true for each in samples]) >= 0.985
