import math

import numpy as np
import pytest

from mmedge.profiling.numbers.ratios import Estimate, bias_of, estimate, holm, judge, log_ratios

ONE = np.ones(60)
PROCESSES = np.repeat(np.arange(5), 12)


def noisy(chance: np.random.Generator, ratio: float, drift: float, processes: np.ndarray = PROCESSES) -> np.ndarray:
    """Times whose true ratio to 1 is ``ratio``: noise in every round that hangs together with the round before, a few
    rounds that were disturbed, and something that is the same for all rounds of a process."""
    count = len(processes)
    rounds = 0.05 * chance.standard_normal(count)
    for at in range(1, count):
        rounds[at] += 0.5 * rounds[at - 1]
    rounds += (chance.random(count) < 0.05) * chance.exponential(0.5, count)
    return ratio * np.exp(rounds + drift * chance.standard_normal(processes.max() + 1)[processes])


def between(times: np.ndarray, base: np.ndarray, processes: np.ndarray = PROCESSES) -> Estimate:
    found = estimate(log_ratios(times, base), processes)
    assert found is not None
    return found


@pytest.mark.parametrize("count", [5, 10])
@pytest.mark.parametrize("drift", [0.0, 0.01, 0.05])
def test_the_true_ratio_lies_in_the_interval_as_often_as_promised(drift, count):
    chance, covered, cases = np.random.default_rng(11), 0, 1_000
    processes = np.repeat(np.arange(count), 12)
    for _ in range(cases):
        found = between(noisy(chance, 0.8, drift, processes), noisy(chance, 1.0, drift, processes), processes)
        covered += found.low <= math.log(0.8) <= found.high
    assert 0.93 <= covered / cases <= 0.97


def test_identical_programs_are_hardly_ever_called_different():
    chance = np.random.default_rng(5)
    pairs = [between(noisy(chance, 1.0, 0.01), noisy(chance, 1.0, 0.01)) for _ in range(300)]
    assert sum(judge([each], 0.03)[0][0] in ("faster", "slower") for each in pairs) <= 3


def test_a_sixth_is_found_among_noise_of_a_twentieth():
    chance = np.random.default_rng(6)
    pairs = [between(noisy(chance, 5 / 6, 0.0), noisy(chance, 1.0, 0.0)) for _ in range(100)]
    assert sum(judge([each], 0.03)[0][0] == "faster" for each in pairs) >= 95


def test_rounds_without_noise_leave_no_doubt():
    found = between(2 * ONE, ONE)
    assert (found.value, found.low, found.high) == pytest.approx((math.log(2),) * 3)
    assert judge([found], 0.03) == [("slower", 0.0)]


def test_what_both_share_in_a_round_does_not_count():
    pictures = np.geomspace(1, 1000, 60)
    assert between(2 * pictures, pictures).reach == pytest.approx(math.log(2))


def test_the_way_round_does_not_matter():
    chance = np.random.default_rng(1)
    a, b = noisy(chance, 1.3, 0.01), noisy(chance, 1.0, 0.01)
    there, back = between(a, b), between(b, a)
    assert (-back.value, -back.high, -back.low) == pytest.approx((there.value, there.low, there.high))


def test_processes_that_differ_widen_the_interval():
    times = np.exp(0.01 * np.random.default_rng(2).standard_normal(60))
    apart = times * np.array([0.9, 1.0, 1.1, 1.0, 1.05])[PROCESSES]
    assert between(apart, ONE).half_width > 5 * between(times, ONE).half_width


def test_a_disturbed_round_in_every_process_changes_nothing():
    times = noisy(np.random.default_rng(3), 1.1, 0.0)
    disturbed = times * np.where(np.arange(60) % 12 == 5, 50, 1)
    assert between(disturbed, ONE).value == pytest.approx(between(times, ONE).value, abs=0.03)


def test_the_interval_is_students_over_the_medians_of_processes():
    from scipy import stats

    values = np.random.default_rng(3).standard_normal(60)
    medians = [np.median(values[group == PROCESSES]) for group in range(5)]
    found = estimate(values, PROCESSES)
    low, high = stats.t.interval(0.95, 4, np.mean(medians), stats.sem(medians))
    assert found and (found.low, found.high) == pytest.approx((low, high))


def test_processes_may_differ_in_length():
    assert between(2 * ONE, ONE, np.array([0] * 7 + [1] * 53)).value == pytest.approx(math.log(2))


def test_rounds_in_which_one_of_them_had_no_such_stage_are_left_out():
    times = np.where(np.arange(60) % 2, 2.0, np.nan)
    found = between(times, ONE)
    assert (found.n, found.value) == (30, pytest.approx(math.log(2)))
    assert estimate(log_ratios(times, np.zeros(60)), PROCESSES) is None


def test_one_value_has_no_interval():
    assert estimate(np.array([1.0]), np.array([0])) is None
    assert estimate(np.array([]), np.array([])) is None


def test_a_lone_process_has_an_interval_and_no_verdict():
    found = between(2 * ONE, ONE, np.zeros(60, int))
    assert (found.processes, found.value) == (1, pytest.approx(math.log(2)))
    assert judge([found], 0.03)[0][0] == "inconclusive"


def around(ratio: float, half: float) -> Estimate:
    """With five processes."""
    value = math.log(ratio)
    return Estimate(value, value - half, value + half, half / 2.776, 4, 60, 5)


@pytest.mark.parametrize(
    ("ratio", "half", "said"),
    [
        (0.88, 0.05, "faster"),
        (0.88, 0.12, "inconclusive"),
        (1.00, 0.02, "same"),
        (1.02, 0.02, "inconclusive"),
        (1.015, 0.005, "same"),
        (1.12, 0.05, "slower"),
        (1.00, 0.10, "inconclusive"),
    ],
)
def test_a_verdict_is_what_the_whole_interval_agrees_on(ratio, half, said):
    assert judge([around(ratio, half)], 0.03)[0][0] == said


def test_a_bias_of_the_machine_is_not_called_a_difference():
    found = around(1.06, 0.01)
    assert [judge([found], 0.03, bias)[0][0] for bias in (0.0, 0.04, 0.06)] == ["slower", "slower", "inconclusive"]


def test_what_a_bias_may_have_hidden_is_not_called_the_same():
    found = around(1.0, 0.01)
    assert [judge([found], 0.03, bias)[0][0] for bias in (0.0, 0.015, 0.025)] == ["same", "same", "inconclusive"]


@pytest.mark.parametrize(("ratio", "half", "bias"), [(1.0, 0.05, 0.0), (1.04, 0.05, 0.0), (1.06, 0.01, 0.0707)])
def test_a_baseline_that_certainly_differs_from_itself_shows_a_bias(ratio, half, bias):
    assert bias_of(around(ratio, half)) == pytest.approx(bias, abs=1e-3)
    assert bias_of(None) == 0.0


def test_the_interval_excludes_the_bound_exactly_when_p_is_below_one_in_twenty():
    for ratio in np.linspace(0.9, 1.1, 41):
        found = around(float(ratio), 0.03)
        _, p = judge([found], 0.03)[0]
        assert (p <= 0.05) == (found.low > math.log1p(0.03) or found.high < -math.log1p(0.03))


def test_among_many_candidates_a_difference_must_be_clearer():
    found = around(1.08, 0.044)
    assert judge([found], 0.03)[0][0] == "slower"
    assert judge([found] + [around(1.0, 0.01)] * 7, 0.03)[0][0] == "inconclusive"


def test_without_an_interval_nothing_is_claimed():
    assert judge([None], 0.03) == [("inconclusive", None)]


def test_holms_adjustment_is_that_of_the_paper():
    assert holm([0.01, 0.04, 0.03, None, 0.005]) == pytest.approx([0.03, 0.06, 0.06, None, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
