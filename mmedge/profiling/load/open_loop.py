"""Requests that come when they are due, whether or not the ones before are answered: an open loop.

A client that waits for one answer before it asks for the next stops asking while the server stalls, and so leaves out
just the requests that would have waited (coordinated omission). Here every request has a moment at which it is due,
fixed before the first is made, and its response time counts from then. One worker serves them first come, first served.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from mmedge.profiling.messages import Answered

Ask: TypeAlias = Callable[[int], Answered]
"""Answers the input of a number, by the clock of `time.perf_counter_ns`."""

PATIENCE = 2.0
"""Times as long as requests come they may take; who is not served by then is not served at all."""


class Request(Struct, frozen=True):
    """One of them, and what became of it."""

    input: int
    due_ns: int
    """By the clock, like the moments of its answer."""
    answered: Answered | None
    """Null where it was still waiting when patience ended."""

    @property
    def response_ns(self) -> float:
        """From when it was due to the finished answer; infinite without one."""
        if self.answered is None:
            return math.inf
        return self.answered.start_ns + self.answered.answer_ns - self.due_ns

    @property
    def first_token_ns(self) -> float:
        """From when it was due to the first token, or to the answer where there was none."""
        if self.answered is None or not self.answered.token_ns:
            return self.response_ns
        return self.answered.start_ns + self.answered.token_ns[0] - self.due_ns


def served(
    ask: Ask,
    inputs: int,
    due: Sequence[int],
    patience_s: float = math.inf,
    *,
    first: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Request]:
    """Serve requests that are ``due`` so many nanoseconds from now, in this order, beginning with input ``first``."""
    begin, requests = clock(), []
    for number, after in enumerate(due):
        while (wait := begin + after - clock()) > 0:
            sleep(wait / 1e9)
        late = clock() - begin > patience_s * 1e9
        which = (first + number) % inputs
        requests.append(Request(which, begin + after, None if late else ask(which)))
    return requests


def poisson(rate: float, seconds: float, seed: int) -> list[int]:
    """Nanoseconds at which requests arrive that come independently of each other, ``rate`` a second on average."""
    chance, moment, moments = random.Random(seed), 0.0, []
    while (moment := moment + chance.expovariate(rate)) < seconds:
        moments.append(int(moment * 1e9))
    return moments


def evenly(rate: float, seconds: float) -> list[int]:
    """Nanoseconds at which the pictures of a camera arrive."""
    return [int(number / rate * 1e9) for number in range(math.ceil(rate * seconds))]
