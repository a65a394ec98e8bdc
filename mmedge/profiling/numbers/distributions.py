"""Student's t and the binomial distribution, exactly: a device has no scipy."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np


def student_inside(t: float, freedom: int) -> float:
    """Probability that Student's t with ``freedom`` degrees lies within +-``t``.

    The finite sums for whole degrees of freedom: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3-4.
    """
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for step in range(freedom // 2):
        total += term
        term *= cosine**2 * ((2 * step + 2) / (2 * step + 3) if odd else (2 * step + 1) / (2 * step + 2))
    return (angle + sine * total) * 2 / math.pi if odd else sine * total


@lru_cache(maxsize=256)
def student_quantile(inside: float, freedom: int) -> float:
    """The t that Student's distribution lies within with probability ``inside``: 2.776 for 0.95 and 4."""
    low, high = 0.0, 1.0
    while student_inside(high, freedom) < inside:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_inside(middle, freedom) < inside else (low, middle)
    return high


def binomial_sums(count: int, chance: float) -> np.ndarray:
    """Probabilities of at most 0, 1, ... ``count`` successes in ``count`` trials that succeed with ``chance``."""
    successes = np.arange(1, count + 1)
    ways = np.concatenate(([0.0], np.cumsum(np.log((count - successes + 1) / successes))))
    all_ = np.arange(count + 1)
    logs = ways + all_ * math.log(chance) + (count - all_) * math.log1p(-chance)
    return np.asarray(np.minimum(np.cumsum(np.exp(logs)), 1.0))


def binomial_two_sided(fewer: int, more: int) -> float:
    """p of two counts being as far apart, if each of their sum went either way with a chance of one half.

    The exact test of McNemar for pairs that changed from right to wrong and from wrong to right.
    """
    if fewer == more:
        return 1.0
    return float(min(1.0, 2 * binomial_sums(fewer + more, 0.5)[min(fewer, more)]))
