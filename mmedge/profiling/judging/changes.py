"""Where a series of measurements changed its level: to look at, never a verdict.

PELT (R. Killick, P. Fearnhead, I. Eckley 2012) as `ruptures` has it, on logarithms, so that a change is a share
whatever the unit. The cost is the distance from the median of a stretch, which one bad run hardly moves, and another
change must gain more than 2.5 s log(n). s is the noise between neighbours, by their median distance, in which the few
changes do not count. In series of 10 to 50 values without a change this finds one in at most 3 of 100, also with heavy
tails (Student's t with 3 degrees of freedom), and a step of four times the noise, give or take a value, in 94 to 99.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct

from mmedge.needs import needs
from mmedge.profiling.judging.history import DOUBTED, Entry

FEWEST = 6
"""Values that a series needs."""
SHORTEST = 3
"""Values between two changes: fewer may be a bad day."""
_PENALTY = 2.5
_QUIETEST = 0.002
"""Noise that is assumed at least, as a share."""
_NORMAL = 0.6745
"""Median of the distance from the mean, in standard deviations, of what is normal."""


class Change(Struct, frozen=True):
    """Between two stretches of a series."""

    at: int
    """The first value after it."""
    ratio: float
    """Of the medians after and before."""


class Series(Struct, frozen=True):
    """A metric of a candidate on one machine over time; a value for each entry that has one."""

    candidate: str
    metric: str
    stat: str
    values: tuple[float, ...]
    dates: tuple[str, ...]
    commits: tuple[str | None, ...]


def series_of(entries: Sequence[Entry], machine: str) -> tuple[Series, ...]:
    """Those that the last entry of ``machine`` has, without runs that decided nothing; one that was judged twice counts
    once, as it was last. None of an empty ``machine``: what nothing identifies may be many."""
    if not machine:
        return ()
    of_it = (entry for entry in entries if entry.machine == machine and DOUBTED not in entry.marks)
    own = list({entry.date: entry for entry in of_it}.values())
    names = [(each.candidate, each.metric, each.stat) for each in own[-1].values] if own else []
    return tuple(_series(own, *name) for name in names)


def changes_in(values: Sequence[float]) -> tuple[Change, ...]:
    """Changes of the level of ``values``, all above 0; none in less than `FEWEST`.

    Raises:
        BackendError: the package `ruptures` is not installed.
    """
    with needs("profile"):
        import ruptures
    if len(values) < FEWEST or min(values) <= 0:
        return ()
    logs = np.log(np.asarray(values, dtype=np.float64))
    penalty = _PENALTY * _noise(logs) * np.log(len(logs))
    ends = ruptures.Pelt(model="l1", min_size=SHORTEST, jump=1).fit(logs).predict(pen=penalty)
    return tuple(_changes(logs, [0, *ends]))


def _series(own: Sequence[Entry], candidate: str, metric: str, stat: str) -> Series:
    found = [
        (each.value, entry.date, entry.commit)
        for entry in own
        for each in entry.values
        if (each.candidate, each.metric, each.stat) == (candidate, metric, stat) and each.value is not None
    ]
    values, dates, commits = zip(*found, strict=True) if found else ((), (), ())
    return Series(candidate, metric, stat, values, dates, commits)


def _noise(logs: np.ndarray) -> float:
    steps = np.abs(np.diff(logs))
    return max(float(np.median(steps)) / _NORMAL / math.sqrt(2), _QUIETEST)


def _changes(logs: np.ndarray, ends: Sequence[int]) -> Iterator[Change]:
    for before, at, after in zip(ends, ends[1:], ends[2:], strict=False):
        yield Change(at, float(np.exp(np.median(logs[at:after]) - np.median(logs[before:at]))))
