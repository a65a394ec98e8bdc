import math

import numpy as np
import pytest
from msgspec.structs import replace

from mmedge.profiling.judging.apart import Series, drift, ratio_apart, series_of
from mmedge.profiling.judging.matching import Subject
from mmedge.profiling.run import Sentinel

INPUTS = 8
COSTS = np.linspace(0, 1.5, INPUTS)


def simulated(chance, level: float, rounds: int = 60, processes: int = 5, inputs: int = INPUTS) -> Series:
    of = np.arange(rounds) * processes // rounds
    asked = chance.integers(0, inputs, rounds)
    logs = level + COSTS[asked] + 0.02 * chance.standard_normal(processes)[of] + 0.05 * chance.standard_normal(rounds)
    return Series(asked, of, {"answer_ms": 40 * np.exp(logs)})


def test_the_interval_covers_the_true_ratio():
    chance = np.random.default_rng(7)
    found = [
        ratio_apart("answer_ms", simulated(chance, math.log(1.2)), simulated(chance, 0.0, rounds=90, processes=7))
        for _ in range(300)
    ]
    covered = np.mean([each.low <= math.log(1.2) <= each.high for each in found])
    assert 0.92 <= covered <= 0.99
    assert np.mean([each.value for each in found]) == pytest.approx(math.log(1.2), abs=0.005)


def test_runs_that_ask_some_inputs_more_often_still_compare():
    chance = np.random.default_rng(7)
    cheap, all_ = simulated(chance, 0.0, rounds=200, inputs=3), simulated(chance, 0.0, rounds=200)
    assert (
        abs(np.median(np.log(cheap.values["answer_ms"] / 40)) - np.median(np.log(all_.values["answer_ms"] / 40))) > 0.3
    )
    assert abs(ratio_apart("answer_ms", cheap, all_).value) < 0.05


def test_what_one_of_them_lacks_has_no_ratio():
    chance = np.random.default_rng(7)
    one = simulated(chance, 0.0)
    assert ratio_apart("ttft_ms", one, one) is None
    assert ratio_apart("answer_ms", one, replace_values(one, np.full(60, np.nan))) is None


def replace_values(series: Series, values: np.ndarray) -> Series:
    return Series(series.inputs, series.processes, {"answer_ms": values})


def test_identical_values_need_no_interval():
    same = Series(np.zeros(20, int), np.arange(20) // 5, {"answer_ms": np.full(20, 40.0)})
    found = ratio_apart("answer_ms", same, same)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_a_series_is_of_the_inputs_that_count(make_run):
    run = make_run(finished=False, rounds=40, inputs=8)
    series = series_of(Subject(run, 1, {2: 0, 5: 1}))
    assert len(series.inputs) == 10 and set(series.inputs) == {0, 1}
    own = [s.answer_ns / 1e6 for s in sorted(run.rounds, key=lambda s: s.round) if s.c == 1 and s.input in (2, 5)]
    assert series.values["answer_ms"] == pytest.approx(own)
    assert series.middle("answer_ms") == pytest.approx(np.median(own))


def test_drift_is_what_a_fixed_computation_says(make_run):
    run = make_run(finished=False, rounds=8)
    slower = replace(run, sentinel=tuple(Sentinel(each.round, each.ns * 2) for each in run.sentinel))
    assert drift(run, slower) == pytest.approx(2) and drift(run, run) == 1
    assert drift(run, replace(run, sentinel=())) is None
