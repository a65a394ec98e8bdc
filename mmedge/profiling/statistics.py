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


class Resampling:
    """The draws of a bootstrap of rounds, the same for every measure of a profile.

    Processes of one program differ from each other by more than chance within one of them explains. So it has two
    levels: it draws sittings, the groups of processes that rounds were measured in, and then rounds inside each. With
    one sitting it is the ordinary bootstrap.
    """

    def __init__(self, sittings: np.ndarray) -> None:
        """``sittings`` numbers the sitting of each round."""
        chance = np.random.default_rng(SEED)
        step = max(1, _CHUNK // max(1, len(sittings)))
        parts = [_draw(sittings, chance, min(step, RESAMPLES - done)) for done in range(0, RESAMPLES, step)]
        self._counts = np.concatenate(parts, axis=1)
        """How often each round was drawn: ``[round, resample]``."""

    def interval(self, times: np.ndarray, baseline: np.ndarray) -> Interval | None:
        """Median of the paired ratios ``times / baseline``, one per round, and its 95 % interval.

        Returns:
            None when fewer than `FEWEST` rounds have both times (more than 0, and not NaN).
        """
        both = (times > 0) & (baseline > 0)
        if np.count_nonzero(both) < FEWEST:
            return None
        logs = np.log(times[both] / baseline[both])
        low, high = np.percentile(self._medians(logs, self._counts[both]), (2.5, 97.5))
        return Interval(*(float(value) for value in np.exp((np.median(logs), low, high))))

    def _medians(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Of every resample that drew any of ``values``, found by counting: sorting each takes ten times as long."""
        order = np.argsort(values)
        reached = np.cumsum(counts[order], axis=0, dtype=np.uint16 if len(counts) < 1 << 16 else np.uint32)
        reached = reached[:, reached[-1] > 0]
        below, above = ((reached < half).sum(axis=0) for half in ((reached[-1] + 1) // 2, reached[-1] // 2 + 1))
        return (values[order[below]] + values[order[above]]) / 2  # type: ignore[no-any-return]


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


def _draw(sittings: np.ndarray, chance: np.random.Generator, count: int) -> np.ndarray:
    """``count`` resamples as long as ``sittings``, with as many rounds of each drawn sitting, give or take one."""
    _, of, sizes = np.unique(sittings, return_inverse=True, return_counts=True)
    rounds, length = np.argsort(of, kind="stable"), len(sittings)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    drawn = chance.integers(0, len(sizes), (count, len(sizes)))[:, np.arange(length) % len(sizes)]
    inside = (chance.random(drawn.shape) * sizes[drawn]).astype(np.int64)
    places = rounds[starts[drawn] + inside] * count + np.arange(count)[:, None]
    counts = np.bincount(places.ravel(), minlength=length * count)
    return counts.astype(np.uint16).reshape(length, count)
