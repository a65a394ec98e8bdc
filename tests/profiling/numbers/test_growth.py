import numpy as np
import pytest
from msgspec.structs import replace
from scipy import stats

from mmedge.profiling.numbers.growth import FEWEST, fits_of, spearman, theil_sen, worst_of


@pytest.mark.parametrize("tied", [False, True])
def test_slope_and_interval_are_those_of_scipy(tied):
    chance = np.random.default_rng(1)
    x = np.round(chance.uniform(0, 10, 40)) if tied else chance.uniform(0, 10, 40)
    y = 3 + 2 * x + chance.standard_normal(40)
    found, expected = theil_sen(x, y), stats.theilslopes(y, x, method="joint")
    assert (found.slope, found.intercept) == pytest.approx((expected.slope, expected.intercept))
    assert (found.low, found.high) == pytest.approx((expected.low_slope, expected.high_slope), abs=0.05)
    assert found.low < 2 < found.high


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0, 3.0, 5.0], [5.0, 1.0, 4.0, 2.0, 8.0, 3.0, 9.0]])
def test_the_interval_of_a_few_points_is_that_of_scipy(values):
    found, expected = theil_sen(np.arange(len(values)), np.array(values)), stats.theilslopes(values, method="separate")
    assert (found.low, found.high) == pytest.approx((expected.low_slope, expected.high_slope))


def test_rank_correlation_is_that_of_scipy():
    chance = np.random.default_rng(2)
    x, y = chance.integers(0, 5, 50), chance.standard_normal(50)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_a_few_wild_points_do_not_turn_the_line():
    x = np.arange(30.0)
    y = np.where(x % 10 == 3, 1e3, 2 * x)
    assert theil_sen(x, y).slope == pytest.approx(2, abs=0.2)


def test_a_planted_cost_of_a_megapixel_is_found(make_run):
    run = make_run(noise=0.001, drift=0.0, disturbed=0, base_ms=100.0, finished=False)
    pixels = [item.features["megapixels"] for item in run.inputs.items]
    fit = next(fit for fit in fits_of(run) if (fit.c, fit.metric, fit.feature) == (0, "answer_ms", "megapixels"))
    assert fit.slope == pytest.approx(30.0 / np.mean(pixels), rel=0.02)
    assert fit.low <= fit.slope <= fit.high
    assert (fit.intercept, fit.rank, fit.n) == (pytest.approx(70.0, rel=0.02), pytest.approx(1.0), 8)


def test_the_twin_is_not_fitted(make_run):
    assert {fit.c for fit in fits_of(make_run(finished=False))} == {0, 1}


def test_the_length_of_answers_is_a_feature_too(make_run):
    run = make_run(finished=False)
    longer = [replace(s, token_ns=s.token_ns + (s.answer_ns,) * s.input) for s in run.samples]
    assert "answer_tokens" in {fit.feature for fit in fits_of(replace(run, samples=tuple(longer)))}


def test_a_feature_that_does_not_vary_and_few_inputs_have_no_line(make_run):
    assert "answer_tokens" not in {fit.feature for fit in fits_of(make_run(finished=False))}
    assert fits_of(make_run(inputs=FEWEST - 1, finished=False)) == ()


def test_the_slowest_inputs_come_first(make_run):
    run = make_run(noise=0.001, disturbed=0, finished=False)
    own = [worst for worst in worst_of(run) if worst.c == 0]
    assert [worst.input for worst in own] == [7, 6, 5, 4, 3]
    assert own[0].times == pytest.approx(own[0].ms / np.median([s.answer_ns / 1e6 for s in run.rounds if s.c == 0]))


def test_a_single_input_is_not_the_worst_of_any(make_run):
    assert worst_of(make_run(inputs=1, finished=False)) == ()
