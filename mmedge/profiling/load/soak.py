"""Sustained against burst: candidates keep a machine busy in turns by the minute, and its last minutes tell.

A small board answers fast while it is cold, and slows down when it is hot or its power budget is spent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import count

import numpy as np
from msgspec import Struct

from mmedge.errors import UsageError
from mmedge.profiling.load.load import Awake
from mmedge.profiling.messages import Answered
from mmedge.profiling.run import Host, Minute

MINUTE_S = 60.0

Keep = Callable[[int, int, int, Answered], None]
"""Told of every answer: the candidate, the minute, the input."""


class Sustained(Struct, frozen=True):
    """A candidate's first minute beside its last."""

    c: int
    first: Minute
    last: Minute

    @property
    def throughput(self) -> float | None:
        """Answers of the last minute by those of the first; null where one had none."""
        return self.last.answers / self.first.answers if self.first.answers and self.last.answers else None

    @property
    def celsius(self) -> float | None:
        """How much hotter it was."""
        return _difference(self.first.celsius, self.last.celsius)

    @property
    def mhz(self) -> float | None:
        """How much faster its clock was, less than 0 where it was slowed."""
        return _difference(self.first.mhz, self.last.mhz)

    @property
    def throttled(self) -> bool | None:
        """In the last minute; null where the machine does not tell."""
        return self.last.throttled


def soak(
    awake: Sequence[Awake],
    inputs: int,
    seconds: float,
    look: Callable[[], Host],
    *,
    keep: Keep = lambda candidate, minute, which, answered: None,
    clock: Callable[[], int] = time.perf_counter_ns,
    minute_s: float = MINUTE_S,
) -> list[Minute]:
    """Let candidates answer for ``seconds`` in all; ``look`` tells how the machine is since it was last asked.

    Whoever is not first begins when the machine is warm, which `Minute.celsius_before` tells. A twin of the first
    candidate would take its time and tell nothing: it is not to be among them.

    Raises:
        UsageError: there is no time for two minutes each.
    """
    turns = round(seconds / minute_s / len(awake))
    if turns < 2:
        least = 2 * len(awake) * minute_s / 60
        raise UsageError(
            f"--soak is {seconds / 60:g} minutes, too few for a first and a last one of each candidate",
            hint=f"at least {least:g} minutes for {len(awake)} candidates",
        )
    minutes = []
    for minute in range(turns * len(awake)):
        c, before = minute % len(awake), look()
        took = _minute(awake[c], inputs, minute_s, lambda which, answered: keep(c, minute, which, answered), clock)  # noqa: B023
        host = look()
        median = float(np.median(took)) / 1e6
        minutes.append(Minute(c, minute, len(took), median, host.celsius, host.mhz, host.throttled, before.celsius))
    return minutes


def sustained(minutes: Iterable[Minute]) -> list[Sustained]:
    """Of every candidate that had two."""
    by_candidate: dict[int, list[Minute]] = {}
    for minute in minutes:
        by_candidate.setdefault(minute.c, []).append(minute)
    return [Sustained(c, own[0], own[-1]) for c, own in sorted(by_candidate.items()) if len(own) > 1]


def _minute(
    awake: Awake, inputs: int, seconds: float, keep: Callable[[int, Answered], None], clock: Callable[[], int]
) -> list[int]:
    """What each answer took; at least one, and the last one may be longer than the minute."""
    took = []
    with awake() as ask:
        end = clock() + seconds * 1e9
        for number in count():
            answered = ask(number % inputs)
            keep(number % inputs, answered)
            took.append(answered.answer_ns)
            if clock() >= end:
                return took
    raise AssertionError("counting ends never")


def _difference(first: float | None, last: float | None) -> float | None:
    return None if first is None or last is None else last - first
