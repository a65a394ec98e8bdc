"""What an answer's time depends on: fits against features of the inputs, and the inputs that take longest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from mmedge.profiling.run import Fit, Run, Worst

METRICS = ("answer_ms", "ttft_ms")
ANSWER_TOKENS = "answer_tokens"
"""A feature of inputs that only their answers tell."""
FEWEST = 5
"""Inputs that a line is fitted to."""
MOST = 1000
"""Inputs that slopes are taken of: their pairs must fit into memory."""
SHOWN = 5
"""Slowest inputs that are kept of each candidate."""

_NORMAL = 1.959964
"""97.5 % of the normal distribution lie below."""


class Line(Struct, frozen=True):
    """``y = intercept + slope * x`` with the 95 % interval of the slope."""

    intercept: float
    slope: float
    low: float
    high: float


def fits_of(run: Run) -> tuple[Fit, ...]:
    """Of every candidate but the twin, for every feature that varies; a point is the median of an input's answers."""
    return tuple(fit for c in range(len(run.candidates) - 1) for metric in METRICS for fit in _fits(run, c, metric))


def worst_of(run: Run) -> tuple[Worst, ...]:
    """The slowest inputs of every candidate but the twin, slowest first."""
    return tuple(worst for c in range(len(run.candidates) - 1) for worst in _worst(run, c))


def theil_sen(x: np.ndarray, y: np.ndarray) -> Line:
    """The median slope of all pairs of points: a third of them may be off without spoiling it.

    Interval: P. K. Sen, Estimates of the Regression Coefficient Based on Kendall's Tau (1968).
    """
    first, second = np.triu_indices(len(x), 1)
    run, rise = x[second] - x[first], y[second] - y[first]
    slopes = np.sort(rise[run != 0] / run[run != 0])
    slope, count = float(np.median(slopes)), len(slopes)
    spread = _NORMAL * np.sqrt((_pairs(len(x)) - _tied(x) - _tied(y)) / 18)
    low = max(round((count - spread) / 2) - 1, 0)
    high = min(round((count + spread) / 2), count - 1)
    return Line(float(np.median(y - slope * x)), slope, float(slopes[low]), float(slopes[high]))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of the ranks, those of equal values being averaged."""
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _fits(run: Run, c: int, metric: str) -> Iterator[Fit]:
    times, tokens = _by_input(run, c, metric), _by_input(run, c, ANSWER_TOKENS)
    names = dict.fromkeys([*(name for item in run.inputs.items for name in item.features), ANSWER_TOKENS])
    for feature in names:
        known = tokens if feature == ANSWER_TOKENS else _feature(run, feature)
        shared = sorted(times.keys() & known.keys(), key=known.__getitem__)
        shared = shared[:: -(-len(shared) // MOST) or 1]
        x, y = np.array([known[at] for at in shared]), np.array([times[at] for at in shared])
        if len(shared) >= FEWEST and len(np.unique(x)) >= 3 and len(np.unique(y)) > 1:
            line = theil_sen(x, y)
            rank = spearman(x, y)
            yield Fit(c, metric, feature, line.intercept, line.slope, line.low, line.high, rank, len(shared))


def _worst(run: Run, c: int) -> Iterator[Worst]:
    times = _by_input(run, c, "answer_ms")
    if len(times) < 2:
        return
    usual = float(np.median([sample.answer_ns for sample in run.rounds if sample.c == c])) / 1e6
    for at in sorted(times, key=lambda at: -times[at])[:SHOWN]:
        yield Worst(c, at, times[at], times[at] / usual)


def _feature(run: Run, name: str) -> dict[int, float]:
    return {at: item.features[name] for at, item in enumerate(run.inputs.items) if name in item.features}


def _by_input(run: Run, c: int, metric: str) -> dict[int, float]:
    """Median over the rounds that asked it."""
    found: dict[int, list[float]] = defaultdict(list)
    for sample in run.rounds:
        if sample.c == c and (metric == "answer_ms" or sample.token_ns):
            ttft = sample.token_ns[0] / 1e6 if sample.token_ns else 0.0
            values = {"answer_ms": sample.answer_ns / 1e6, "ttft_ms": ttft, ANSWER_TOKENS: len(sample.token_ns)}
            found[sample.input].append(values[metric])
    return {at: float(np.median(values)) for at, values in found.items()}


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _pairs(count: int) -> int:
    return count * (count - 1) * (2 * count + 5)


def _tied(values: np.ndarray) -> int:
    _, counts = np.unique(values, return_counts=True)
    return sum(_pairs(int(count)) for count in counts)
