"""What two runs that were measured apart say of each other: nothing pairs their rounds, so drift of the machine between
them looks like a difference.

Answers to the same inputs are compared: each logarithm is taken less what its input usually costs, the mean of the two
runs' medians, so that runs which asked some inputs more often than others still compare. The rest is as in `ratios`:
the processes' medians are the independent values, and the interval is Welch's t over the two sets of them (B. L. Welch
1947), as it is Student's over one. It knows nothing of drift. So nothing is claimed below what either run's baseline
certainly differs from itself, nor below what the fixed computation before each round changed by from one to the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmedge.profiling.judging.matching import Subject
from mmedge.profiling.numbers.distributions import student_quantile
from mmedge.profiling.numbers.estimates import table_of
from mmedge.profiling.numbers.ratios import CONFIDENCE, Estimate, estimate
from mmedge.profiling.run import Run


@dataclass(frozen=True)
class Series:
    """The answers of one candidate in rounds."""

    inputs: np.ndarray
    """By round: the input, by the number that it has in both runs."""
    processes: np.ndarray
    values: Mapping[str, np.ndarray]
    """By measure and round; NaN where there is none."""

    def middle(self, metric: str) -> float | None:
        """The median."""
        known = self.values[metric][~np.isnan(self.values[metric])]
        return float(np.median(known)) if len(known) else None


def series_of(subject: Subject) -> Series:
    """What a candidate answered to the inputs that count."""
    run, numbers = subject.run, subject.numbers
    samples = [each for each in run.rounds if each.c == subject.c and each.input in numbers]
    table = table_of(samples, len(run.candidates), whole=run.energy.whole)
    inputs = dict(sorted((sample.round, numbers[sample.input]) for sample in samples))
    values = {name: each[subject.c] for name, each in table.values.items()}
    return Series(np.array([*inputs.values()]), table.processes, values)


def ratio_apart(metric: str, own: Series, base: Series) -> Estimate | None:
    """The log-ratio of ``own`` to ``base``; None where one of them has too few values, or none."""
    if metric not in own.values or metric not in base.values:
        return None
    logs = [_logs(each.values[metric]) for each in (own, base)]
    usual = _usual(logs, (own.inputs, base.inputs))
    one, two = (
        estimate(log - _costs(usual, each.inputs), each.processes) for log, each in zip(logs, (own, base), strict=True)
    )
    return _difference(one, two)


def drift(a: Run, b: Run) -> float | None:
    """The same small computation in B by that in A; None where one of them did not measure it."""
    if not a.sentinel or not b.sentinel:
        return None
    one, two = (float(np.median([each.ns for each in run.sentinel])) for run in (a, b))
    return two / one if one > 0 and two > 0 else None


def _logs(values: np.ndarray) -> np.ndarray:
    found = np.full(len(values), np.nan)
    found[values > 0] = np.log(values[values > 0])
    return found


def _usual(logs: Sequence[np.ndarray], inputs: Sequence[np.ndarray]) -> dict[int, float]:
    """What an input costs, of those that both have values of."""
    one, two = (
        {int(at): float(np.median(known)) for at in set(of) if len(known := log[(of == at) & ~np.isnan(log)])}
        for log, of in zip(logs, inputs, strict=True)
    )
    return {at: (one[at] + two[at]) / 2 for at in one.keys() & two.keys()}


def _costs(usual: Mapping[int, float], inputs: np.ndarray) -> np.ndarray:
    return np.array([usual.get(int(at), math.nan) for at in inputs])


def _difference(own: Estimate | None, base: Estimate | None) -> Estimate | None:
    """Degrees of freedom as B. L. Welch (1947) and F. E. Satterthwaite (1946) estimate them, rounded down."""
    if own is None or base is None:
        return None
    value, error = own.value - base.value, math.hypot(own.error, base.error)
    parts = own.error**4 / own.freedom + base.error**4 / base.freedom
    freedom = max(1, int(error**4 / parts)) if parts > 0 else own.freedom + base.freedom
    half = student_quantile(CONFIDENCE, freedom) * error
    count, processes = min(own.n, base.n), min(own.processes, base.processes)
    return Estimate(value, value - half, value + half, error, freedom, count, processes)
