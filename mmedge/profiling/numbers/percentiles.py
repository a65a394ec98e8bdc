"""Upper bounds of percentiles of latency, never interpolated.

The slowest answers of a sample say little about the slowest one percent of all answers. MLPerf (Reddi et al. 2020,
section V-C, and `LoadGen`) asks how many answers must be seen: of ``n`` independent ones, at most ``t`` lie above the
true percentile ``p`` with the probability I(p; n - t, t + 1), the binomial sum. Where that is at most 0.01, the
(t + 1)-th largest is an upper bound with 99 % confidence. With fewer answers the largest is a bound with less.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from msgspec import Struct

from mmedge.profiling.numbers.distributions import binomial_sums

DOUBT = 0.01
"""Chance that a bound is too low."""
LEAST = 0.5
"""Confidence below which a bound is not worth telling."""

PERCENTILES = {"p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


class Bound(Struct, frozen=True):
    """Below what a percentile lies."""

    value: float | None
    """The percentile among the samples: the smallest that this share of them does not exceed. Null for too few."""
    high: float | None
    """Upper bound of the true percentile; null where even the largest sample is none worth telling."""
    confidence: float
    n: int

    @property
    def enough(self) -> bool:
        """Whether the bound holds with 99 % confidence."""
        return self.confidence >= 1 - DOUBT

    @property
    def note(self) -> str:
        """What must be said beside a bound that is less sure."""
        return "" if self.enough else f"n={self.n}: bound, {self.confidence:.0%} conf.".replace("%", " %")


def bound_of(values: np.ndarray, share: float) -> Bound:
    """The upper bound of the percentile ``share`` (0.99) of what ``values`` are independent samples of."""
    ordered, count = np.sort(values), len(values)
    slower = slower_allowed(count, share)
    if slower is not None:
        return Bound(float(ordered[math.ceil(share * count) - 1]), float(ordered[count - 1 - slower]), 1 - DOUBT, count)
    confidence = 1 - share**count
    return Bound(None, float(ordered[-1]) if confidence >= LEAST else None, confidence, count)


@lru_cache(maxsize=1024)
def slower_allowed(count: int, share: float) -> int | None:
    """How many of ``count`` samples may be slower than the bound (the ``t`` of MLPerf); None when there are too few."""
    if count == 0:
        return None
    allowed = int(np.searchsorted(binomial_sums(count, 1 - share), DOUBT, side="right"))
    return allowed - 1 if allowed else None


def samples_needed(share: float, slower: int = 0) -> int:
    """Fewest samples for a bound that ``slower`` of them exceed: 662 for 0.99 and 1."""
    high = 1
    while (found := slower_allowed(high, share)) is None or found < slower:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        found = slower_allowed(middle, share)
        low, high = (low, middle) if found is not None and found >= slower else (middle, high)
    return high
