"""When a fresh process has come to its usual pace: caches filled, memory taken, clocks raised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmedge.profiling.numbers.growth import theil_sen

WINDOWS = 5
"""The last so many are looked at."""
ANSWERS = 2
"""Of a window."""
SPREAD = 0.05
"""Of the windows, slowest to fastest, as a share of the one in the middle."""
PATIENCE = 4
"""Times the least warm-up that is waited for a steady pace."""


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
    slope = theil_sen(np.arange(WINDOWS), windows)
    return slope.low <= 0 <= slope.high and float(windows.max() - windows.min()) <= SPREAD * float(np.median(windows))
