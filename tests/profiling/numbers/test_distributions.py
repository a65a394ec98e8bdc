import numpy as np
import pytest
from scipy import stats

from mmedge.profiling.numbers.distributions import binomial_sums, binomial_two_sided, student_inside, student_quantile


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 60])
@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 3.0, 10.0])
def test_students_distribution_is_that_of_scipy(t, freedom):
    assert student_inside(t, freedom) == pytest.approx(1 - 2 * stats.t.sf(t, freedom), abs=1e-14)
    assert student_inside(-t, freedom) == student_inside(t, freedom)


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 100])
@pytest.mark.parametrize("inside", [0.5, 0.9, 0.95, 0.99])
def test_students_quantiles_are_those_of_scipy(inside, freedom):
    assert student_quantile(inside, freedom) == pytest.approx(stats.t.ppf((1 + inside) / 2, freedom))


@pytest.mark.parametrize("count", [1, 10, 662, 20_000])
@pytest.mark.parametrize("chance", [0.001, 0.01, 0.1, 0.5])
def test_binomial_sums_are_those_of_scipy(count, chance):
    expected = stats.binom.cdf(np.arange(count + 1), count, chance)
    assert binomial_sums(count, chance) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("fewer", "more"), [(0, 0), (0, 5), (3, 12), (12, 3), (7, 7), (40, 60)])
def test_the_two_sided_p_of_a_table_is_that_of_scipy(fewer, more):
    expected = stats.binomtest(fewer, fewer + more).pvalue if fewer + more else 1.0
    assert binomial_two_sided(fewer, more) == pytest.approx(expected)
