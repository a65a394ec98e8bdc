import numpy as np

from mmedge.profiling.showing.html.thin import steps, windows


def test_a_spike_of_one_sample_is_still_there():
    values = np.ones(50_000)
    values[31_415] = 9.0
    found = windows(np.linspace(0, 1, len(values)), values, 0, 1)
    assert len(found.at) == 120 and found.high.max() == 9 and found.median.max() == 1 and found.low.min() == 1


def test_times_without_samples_are_left_out():
    found = windows(np.array([0.0, 1.0]), np.array([3.0, 4.0]), 0, 1)
    assert found.median.tolist() == [3, 4] and found.at[0] < 0.01 and found.at[1] > 0.99


def test_all_samples_at_one_time_are_one_window():
    assert windows(np.zeros(3), np.arange(3.0), 0, 0).median.tolist() == [1]


def test_steps_keep_the_ends_and_every_share_is_true():
    values = np.random.default_rng(0).exponential(size=50_000)
    at, shares = steps(values)
    assert len(at) == 300 and at[0] == values.min() and at[-1] == values.max() and shares[-1] == 1
    assert all(np.mean(values <= limit) == share for limit, share in zip(at, shares, strict=True))


def test_few_samples_are_all_steps():
    at, shares = steps(np.array([3.0, 1.0]))
    assert at.tolist() == [1, 3] and shares.tolist() == [0.5, 1]
