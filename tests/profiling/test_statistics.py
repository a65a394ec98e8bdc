import numpy as np
import pytest

from mmedge.profiling import statistics
from mmedge.profiling.statistics import FEWEST, Interval, Resampling, spread, verdict

ONE = np.ones(60)
SITTINGS = np.repeat(np.arange(5), 12)


def interval(times: np.ndarray, baseline: np.ndarray, sittings: np.ndarray) -> Interval | None:
    return Resampling(sittings).interval(times, baseline)


@pytest.fixture
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 600)


def noisy(chance: np.random.Generator, ratio: float, drift: float) -> np.ndarray:
    """Times whose true ratio to 1 is ``ratio``: noise in every round that hangs together with the round before, a few
    rounds that were disturbed, and something that is the same for all rounds of a sitting."""
    rounds = 0.05 * chance.standard_normal(60)
    rounds[1:] += 0.3 * rounds[:-1]
    rounds += (chance.random(60) < 0.05) * chance.exponential(0.5, 60)
    return ratio * np.exp(rounds + drift * chance.standard_normal(5)[SITTINGS])


@pytest.mark.parametrize("drift", [0.0, 0.01, 0.02])
def test_the_true_ratio_lies_in_the_interval_about_as_often_as_promised(drift, fewer_resamples):
    chance, covered, cases = np.random.default_rng(11), 0, 400
    for _ in range(cases):
        found = interval(noisy(chance, 0.8, drift), noisy(chance, 1.0, drift), SITTINGS)
        covered += found.low <= 0.8 <= found.high
    assert 0.92 <= covered / cases <= 0.995


def test_identical_programs_are_hardly_ever_called_different(fewer_resamples):
    chance = np.random.default_rng(5)
    verdicts = [verdict(interval(noisy(chance, 1.0, 0.01), noisy(chance, 1.0, 0.01), SITTINGS)) for _ in range(200)]
    assert sum(found in ("faster", "slower") for found in verdicts) <= 1


def test_a_tenth_is_found(fewer_resamples):
    chance = np.random.default_rng(6)
    found = [interval(noisy(chance, 0.9, 0.0), noisy(chance, 1.0, 0.0), SITTINGS) for _ in range(100)]
    assert sum(verdict(each) == "faster" for each in found) >= 95


def test_rounds_without_noise_leave_no_doubt():
    found = interval(2 * ONE, ONE, SITTINGS)
    assert (found.ratio, found.low, found.high) == pytest.approx((2, 2, 2))


def test_what_both_share_in_a_round_does_not_count():
    pictures = np.geomspace(1, 1000, 60)
    assert interval(2 * pictures, pictures, SITTINGS).reach == pytest.approx(2)


def test_the_way_round_does_not_matter():
    chance = np.random.default_rng(1)
    a, b = noisy(chance, 1.3, 0.01), noisy(chance, 1.0, 0.01)
    there, back = interval(a, b, SITTINGS), interval(b, a, SITTINGS)
    assert (1 / back.ratio, 1 / back.high, 1 / back.low) == pytest.approx(
        (there.ratio, there.low, there.high), rel=1e-3
    )


def test_processes_that_differ_widen_the_interval():
    chance = np.random.default_rng(2)
    times = np.exp(0.01 * chance.standard_normal(60))
    apart = times * np.array([0.9, 1.0, 1.1, 1.0, 1.05])[SITTINGS]
    assert interval(apart, ONE, SITTINGS).reach > 1.03 > interval(times, ONE, SITTINGS).reach


def test_the_same_times_give_the_same_interval():
    times = noisy(np.random.default_rng(3), 1.1, 0.0)
    assert interval(times, ONE, SITTINGS) == interval(times, ONE, SITTINGS)


def test_sittings_may_differ_in_length():
    times = noisy(np.random.default_rng(3), 1.1, 0.0)
    assert interval(times, ONE, np.array([0] * 7 + [1] * 53)).low < 1.1


@pytest.mark.parametrize("rounds", range(FEWEST))
def test_too_few_rounds_give_no_interval(rounds):
    assert interval(ONE[:rounds], ONE[:rounds], SITTINGS[:rounds]) is None


@pytest.mark.parametrize("rounds", [59, 60])
def test_medians_are_those_of_the_drawn_rounds(rounds, fewer_resamples):
    """Compared with drawing them one by one, for an even and an odd number of rounds."""
    resampling = Resampling(SITTINGS[:rounds])
    values = np.random.default_rng(4).standard_normal(rounds)
    drawn = [np.median(np.repeat(values, counts)) for counts in resampling._counts.T]
    assert resampling._counts.shape == (rounds, 600) and {*resampling._counts.sum(axis=0)} == {rounds}
    assert resampling._medians(values, resampling._counts) == pytest.approx(drawn)


def test_a_resample_holds_rounds_of_as_many_sittings_as_there_are(fewer_resamples):
    counts = Resampling(SITTINGS)._counts
    by_sitting = np.stack([counts[sitting == SITTINGS].sum(axis=0) for sitting in range(5)])
    assert {*np.unique(by_sitting)} <= {0, 12, 24, 36, 48, 60}


def test_rounds_in_which_one_of_them_had_no_such_stage_are_left_out():
    times = np.where(np.arange(60) % 2, 2.0, np.nan)
    assert interval(times, ONE, SITTINGS).ratio == pytest.approx(2)
    assert interval(times, np.zeros(60), SITTINGS) is None


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.80, 0.96, "faster"),
        (0.80, 0.98, "unclear"),
        (0.98, 1.02, "same"),
        (0.99, 1.05, "unclear"),
        (1.01, 1.02, "same"),
        (1.04, 1.20, "slower"),
        (0.90, 1.10, "unclear"),
    ],
)
def test_a_verdict_is_what_the_whole_interval_agrees_on(low, high, said):
    assert verdict(Interval(1.0, low, high)) == said


def test_what_a_machine_cannot_resolve_it_does_not_call_a_difference():
    found = Interval(1.05, 1.04, 1.06)
    assert (verdict(found), verdict(found, resolution=1.05), verdict(found, resolution=1.07)) == (
        "slower",
        "unclear",
        "same",
    )


def test_a_hopeless_machine_does_not_call_everything_the_same():
    assert verdict(Interval(1.2, 1.1, 1.3), resolution=1.5) == "unclear"


def test_without_an_interval_nothing_is_clear():
    assert verdict(None) == "unclear"


def test_the_spread_is_the_middle_half():
    found = spread([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.median, found.quartiles, found.count) == (3.0, 2.0, 5)
