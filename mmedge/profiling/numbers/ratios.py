"""What paired rounds say about a ratio, how sure that is, and what may be claimed.

The estimate is the mean of the processes' medians of the log-ratios of a round, and its interval Student's t over these
medians, one for each group of processes. Why not the percentile bootstrap of rounds inside processes: five to ten
processes are few. Resampling them finds too little spread (coverage 85-93 % where processes differ or rounds hang
together), and resampling the rounds too counts their noise twice (98-99 % where they do not). Medians of processes are
independent whatever hangs together inside them, and near enough to normal: the interval covers 94-96 % for 5 to 10
processes, rounds with a correlation from 0 to 0.9, equal or different processes, with and without outliers
(`benchmarks/profiler_checks/p03_coverage.py`). Stopping once it is narrow enough costs two points of it at most.
It is what the bootstrap over processes becomes when it is corrected for their number: T. Hesterberg, What Teachers
Should Know About the Bootstrap (2015), section 4; A. Davison and D. Hinkley, Bootstrap Methods (1997), section 3.8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from mmedge.profiling.numbers.distributions import student_inside, student_quantile
from mmedge.profiling.run import Verdict

CONFIDENCE = 0.95
BLOCKS = 5
"""Parts that the rounds of a lone process are taken in; what differs between processes stays unknown."""


class Estimate(Struct, frozen=True):
    """The mean of the processes' medians, with its 95 % interval."""

    value: float
    low: float
    high: float
    error: float
    """Standard error of ``value``."""
    freedom: int
    """Degrees of freedom: processes less one."""
    n: int
    """Values."""
    processes: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    @property
    def reach(self) -> float:
        """How far from 0 the true value may be."""
        return max(abs(self.low), abs(self.high))


def estimate(values: np.ndarray, processes: np.ndarray) -> Estimate | None:
    """Of values in the order they were measured, NaN where there is none; ``processes`` numbers the group of each.

    Returns:
        None where neither two processes nor two parts of a lone one have a value.
    """
    known = ~np.isnan(values)
    values, groups = values[known], processes[known]
    count = len(np.unique(groups))
    if count == 1:
        groups = np.arange(len(values)) * BLOCKS // max(len(values), BLOCKS)
    medians = np.array([np.median(values[groups == group]) for group in np.unique(groups)])
    if len(medians) < 2:
        return None
    value, error = float(medians.mean()), float(medians.std(ddof=1)) / math.sqrt(len(medians))
    half = student_quantile(CONFIDENCE, len(medians) - 1) * error
    return Estimate(value, value - half, value + half, error, len(medians) - 1, len(values), count)


def log_ratios(values: np.ndarray, base: np.ndarray) -> np.ndarray:
    """By round; NaN where one of the two is unknown or not above 0."""
    both = (values > 0) & (base > 0)
    found = np.full(len(values), np.nan)
    found[both] = np.log(values[both] / base[both])
    return found


def floor_of(twin: Estimate) -> float:
    """How far the baseline may be from itself, as a share: smaller differences cannot be seen."""
    return math.expm1(twin.reach)


def bias_of(twin: Estimate | None) -> float:
    """The same where the baseline certainly differs from itself, else 0: then only chance sets them apart, which the
    intervals of the others hold too."""
    return bias_between(math.exp(twin.low), math.exp(twin.high)) if twin else 0.0


def bias_between(low: float, high: float) -> float:
    """`bias_of` by the ends of the interval of the baseline's ratio to itself."""
    return max(high, 1 / low) - 1 if low > 1 or high < 1 else 0.0


def judge(found: Sequence[Estimate | None], margin: float, bias: float = 0.0) -> list[tuple[Verdict, float | None]]:
    """What may be said of each log-ratio, and the p of its being no further from 1 than the bound (after Holm).

    Faster or slower: the whole interval lies beyond the margin, and beyond the ``bias`` that the baseline shows against
    itself; still so among that many candidates. Same: the whole interval lies within the margin, which is the
    equivalence test of two one-sided tests, each at 2.5 %, and it still does where the ``bias`` moved it, either way.
    Both margins are ratios to 1: 0.03 is from x0.971 to x1.03. A single process allows no claim.
    """
    inner, moved = math.log1p(margin), math.log1p(bias)
    adjusted = holm([_beyond(each, max(inner, moved)) if each else None for each in found])
    return [(_verdict(each, inner, moved, p), p) for each, p in zip(found, adjusted, strict=True)]


def holm(found: Sequence[float | None]) -> list[float | None]:
    """Each p adjusted for there being several (S. Holm 1979); None stays None and does not count."""
    adjusted: list[float | None] = [None] * len(found)
    known = sorted((p, place) for place, p in enumerate(found) if p is not None)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        adjusted[place] = highest
    return adjusted


def _verdict(found: Estimate | None, margin: float, bias: float, p: float | None) -> Verdict:
    bound = max(margin, bias)
    if found is None or p is None or found.processes < 2:
        return "inconclusive"
    if p <= 1 - CONFIDENCE and (found.low > bound or found.high < -bound):
        return "slower" if found.low > bound else "faster"
    return "same" if found.reach + bias < margin else "inconclusive"


def _beyond(found: Estimate, bound: float) -> float:
    """Two-sided p of a true value that lies within +-``bound``."""
    distance = abs(found.value) - bound
    if found.error == 0:
        return 0.0 if distance > 0 else 1.0
    inside = student_inside(distance / found.error, found.freedom)
    return max(0.0, 1 - inside) if distance > 0 else 1.0
