import numpy as np
import pytest
from msgspec.structs import replace

from mmedge.profiling.judging.changes import changes_in, series_of
from mmedge.profiling.judging.history import SCHEMA, Entry, Value

pytest.importorskip("ruptures")


def entry(date: str, ms: float | None, machine: str = "here", name: str = "int8") -> Entry:
    value = Value(name, "answer_ms", "median", ms, None, None, "holds")
    return Entry(SCHEMA, date, f"commit of {date}", machine, 0, (value,))


def noisy(count: int, noise: float = 0.02) -> np.ndarray:
    return np.exp(noise * np.random.default_rng(7).standard_normal(count))


def test_a_step_is_found_where_it_is():
    values = 40 * noisy(30)
    values[18:] *= 1.1
    (change,) = changes_in(values)
    assert abs(change.at - 18) <= 1 and change.ratio == pytest.approx(1.1, abs=0.02)


def test_noise_is_no_step():
    assert changes_in(40 * noisy(40)) == ()


def test_one_bad_run_is_no_step():
    values = 40 * noisy(30)
    values[12] *= 3
    assert changes_in(values) == ()


def test_the_same_value_again_and_again_is_no_step():
    assert changes_in([300.0] * 12) == ()


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1, 2, 2, 2], [0.0] * 12, [-1.0, 1.0] * 6])
def test_too_few_or_other_than_positive_values_have_none(values):
    assert changes_in(values) == ()


def test_a_series_is_of_one_machine():
    entries = [entry("1", 40), entry("2", 90, machine="there"), entry("3", 41)]
    (series,) = series_of(entries, "here")
    assert (series.values, series.dates, series.commits) == ((40, 41), ("1", "3"), ("commit of 1", "commit of 3"))
    assert series_of(entries, "elsewhere") == ()


def test_a_run_judged_twice_counts_once():
    entries = [entry("1", 40), entry("1", 40), replace(entry("2", 41), exit_code=8)]
    assert series_of(entries, "here")[0].values == (40, 41)


def test_a_run_that_decided_nothing_is_left_out():
    entries = [entry("1", 40), replace(entry("2", 90), marks=("DOUBTED",))]
    assert series_of(entries, "here")[0].values == (40,)


def test_what_had_no_value_is_left_out():
    assert series_of([entry("1", None), entry("2", 41)], "here")[0].values == (41,)
    assert series_of([entry("1", None)], "here")[0].values == ()


def test_machines_that_nothing_identifies_are_no_series():
    assert series_of([entry("1", 40, machine=""), entry("2", 41, machine="")], "") == ()
