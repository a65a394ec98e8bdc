"""Fewer points that show the same: a plot has only so many pixels."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

WINDOWS = 120
STEPS = 300


class Windows(Struct, frozen=True):
    """Values over time, by equal parts of the time; parts without values are left out."""

    at: np.ndarray
    low: np.ndarray
    median: np.ndarray
    high: np.ndarray


def windows(at: np.ndarray, values: np.ndarray, begin: float, end: float, count: int = WINDOWS) -> Windows:
    """Lowest, median and highest value of each of ``count`` parts between ``begin`` and ``end``."""
    place = np.clip(((at - begin) / max(end - begin, 1e-12) * count).astype(int), 0, count - 1)
    parts = [(number, values[place == number]) for number in np.unique(place)]
    middle = np.array([begin + (number + 0.5) * (end - begin) / count for number, _ in parts])
    found = np.array([(part.min(), np.median(part), part.max()) for _, part in parts]).reshape(-1, 3)
    return Windows(middle, *found.T)


def steps(values: np.ndarray, count: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Values and the share of all that are no larger: at most ``count`` of them, the smallest and the largest kept."""
    ordered = np.sort(values)
    shares = np.arange(1, len(ordered) + 1) / len(ordered)
    if len(ordered) > count:
        kept = np.unique(np.linspace(0, len(ordered) - 1, count).round().astype(int))
        return ordered[kept], shares[kept]
    return ordered, shares
