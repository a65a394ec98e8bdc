"""The bootstrap of a mean over inputs."""

from __future__ import annotations

import numpy as np

RESAMPLES = 10_000
SEED = 20_240_229
"""The same scores always give the same interval."""

_CHUNK = 2_000_000
"""Drawn values held at a time."""


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of independent ``values``, by resampling them.

    Percentiles widened for small samples as T. Hesterberg, What Teachers Should Know About the Bootstrap (2015),
    section 4, has it: as a resample's spread is too small by the square root of (n - 1) / n.
    """
    chance, count = np.random.default_rng(SEED), len(values)
    if count < 2:
        return float(values.mean()), float(values.mean())
    step = max(1, _CHUNK // count)
    sizes = [min(step, RESAMPLES - done) for done in range(0, RESAMPLES, step)]
    means = np.concatenate([values[chance.integers(0, count, (size, count))].mean(axis=1) for size in sizes])
    middle, wider = values.mean(), np.sqrt(count / (count - 1))
    low, high = middle + (np.percentile(means, (2.5, 97.5)) - middle) * wider
    return float(low), float(high)
