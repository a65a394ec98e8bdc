"""What paired rounds say about a ratio, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from msgspec import Struct

RESAMPLES = 10_000
SEED = 20_240_229
"""Of the resampling: the same measurements always give the same interval."""

FEWEST = 6
"""Rounds that an interval needs: all of fewer can lie on one side of the true median in more than 5 % of cases."""

MARGIN = 0.03
"""Ratios closer to 1 than this do not matter to anyone who deploys a model."""

WIDEST = 1.1
"""Ratios that are called ``same`` on a machine that cannot resolve the margin; beyond, nobody would call them that."""

_CHUNK = 2_000_000
"""Resampled values held at a time."""

Verdict: TypeAlias = Literal["faster", "slower", "same", "unclear"]


class Interval(Struct, frozen=True):
    """A ratio to the first candidate, with its 95 % confidence interval."""

    ratio: float
    low: float
    high: float

    @property
    def reach(self) -> float:
        """How far from 1 the ratio may be, as a factor."""
        return max(self.high, 1 / self.low)


class Spread(Struct, frozen=True):
    """The middle of many values, and the range of the middle half of them."""

    median: float
    quartiles: float
    count: int


def spread(values: Sequence[float] | np.ndarray) -> Spread:
    """Of at least one value."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return Spread(float(middle), float(high - low), len(values))


def interval(times: np.ndarray, baseline: np.ndarray, sittings: np.ndarray) -> Interval | None:
    """Median of the paired ratios ``times / baseline``, one per round, and its 95 % bootstrap interval.

    Processes of one program differ from each other by more than chance within one of them explains. So the bootstrap
    has two levels: it draws sittings, the groups of processes that rounds were measured in (``sittings``, one number
    per round), and then rounds inside each. With one sitting that is the ordinary bootstrap of rounds.

    Returns:
        None when fewer than `FEWEST` rounds have both times.
    """
    both = (times > 0) & (baseline > 0)
    if np.count_nonzero(both) < FEWEST:
        return None
    logs = np.log(times[both] / baseline[both])
    medians = _resampled_medians(logs, sittings[both])
    low, high = np.percentile(medians, (2.5, 97.5))
    return Interval(*(float(value) for value in np.exp((np.median(logs), low, high))))


def verdict(found: Interval | None, resolution: float = 1.0, margin: float = MARGIN) -> Verdict:
    """What may be said: only what the whole interval agrees on.

    The bound is the margin, or ``resolution`` where that is wider: the `reach` of the same measure when the first
    candidate was compared with itself. A machine that sees a difference of 5 % there, where there is none, cannot tell
    5 % elsewhere. ``same`` thus means: not further apart than the bound, nor than `WIDEST`.
    """
    if found is None:
        return "unclear"
    bound = max(1 + margin, resolution)
    if found.high < 1 / bound:
        return "faster"
    if found.low > bound:
        return "slower"
    return "same" if found.reach <= min(bound, WIDEST) else "unclear"


def _resampled_medians(values: np.ndarray, sittings: np.ndarray) -> np.ndarray:
    chance = np.random.default_rng(SEED)
    step = max(1, _CHUNK // len(values))
    parts = [_draw(values, sittings, chance, min(step, RESAMPLES - done)) for done in range(0, RESAMPLES, step)]
    return np.concatenate(parts)


def _draw(values: np.ndarray, sittings: np.ndarray, chance: np.random.Generator, count: int) -> np.ndarray:
    """Medians of ``count`` resamples as long as ``values``: as many rounds of each drawn sitting, give or take one."""
    _, of, sizes = np.unique(sittings, return_inverse=True, return_counts=True)
    grouped = values[np.argsort(of, kind="stable")]
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    slots = np.arange(len(values)) % len(sizes)
    drawn = chance.integers(0, len(sizes), (count, len(sizes)))[:, slots]
    inside = (chance.random(drawn.shape) * sizes[drawn]).astype(np.int64)
    return np.median(grouped[starts[drawn] + inside], axis=1)  # type: ignore[no-any-return]
