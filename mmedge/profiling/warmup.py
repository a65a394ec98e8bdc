"""When a fresh process has come to its usual pace: caches filled, memory taken, clocks raised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

WINDOWS = 5
"""The last so many are looked at."""
ANSWERS = 2
"""Of a window."""
SPREAD = 0.05
"""Of the windows, slowest to fastest, as a share of the one in the middle."""
PATIENCE = 4
"""Times the least warm-up that is waited for a steady pace."""

_NORMAL = 1.959964
"""97.5 % of a normal distribution lie below."""


def enough(times_s: Sequence[float], seconds: float, answers: int, most_s: float) -> bool:
    """Whether a warm-up of these answers may end: it has had ``answers`` or ``seconds`` and is steady, or patience
    (`PATIENCE`, or ``most_s`` seconds) is at its end. One answer is always asked for."""
    count, spent = len(times_s), sum(times_s)
    if count and (spent >= min(most_s, PATIENCE * seconds) or count >= PATIENCE * answers):
        return True
    return (count >= answers or spent >= seconds) and steady(times_s)


def steady(times_s: Sequence[float]) -> bool:
    """Whether the last windows neither fall nor rise (the interval of their slope covers 0) and are close together."""
    if len(times_s) < WINDOWS * ANSWERS:
        return False
    windows = np.array(times_s[-WINDOWS * ANSWERS :]).reshape(WINDOWS, ANSWERS).sum(axis=1)
    low, high = slope_interval(windows.tolist())
    return low <= 0 <= high and float(windows.max() - windows.min()) <= SPREAD * float(np.median(windows))


def slope_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the slope of evenly spaced values: Theil's, by Kendall's statistic (P. K. Sen 1968)."""
    count = len(values)
    slopes = sorted((values[b] - values[a]) / (b - a) for a, b in combinations(range(count), 2))
    reach = _NORMAL * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, round((len(slopes) - reach) / 2) - 1)
    high = min(len(slopes) - 1, round((len(slopes) + reach) / 2))
    return slopes[low], slopes[high]
