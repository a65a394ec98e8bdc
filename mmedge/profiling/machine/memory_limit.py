"""Will it fit? Candidates open their bundle and answer under a real memory limit, down to the smallest that works."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from mmedge.core.machine import usable_memory
from mmedge.errors import MmedgeError, ResourceError
from mmedge.profiling.machine import page_cache
from mmedge.profiling.machine.cold import files_of
from mmedge.profiling.machine.confinement import Confinement, confined
from mmedge.profiling.messages import Ask, Load
from mmedge.profiling.run import Candidate, Limit
from mmedge.profiling.workers import COMMAND, Worker, running

MOST_ASKS = 3
RESOLUTION = 1.02
"""Ratio of the smallest limit that works to the largest that was seen not to."""
REACH = 4.0
"""How far below what works the first guess lies that should not."""
REPEATS = 5
"""Memory differs a little from process to process: the smallest limit has to work once more, or one just above it."""
PATIENCE = 10.0
"""Times as long as without a limit, and so many seconds more: who takes longer only reads the same pages again."""

_MIB = 1 << 20


class Free(NamedTuple):
    """What a candidate needs without a limit."""

    seconds: float
    """From asking for the process to the last answer."""
    bytes: int
    """That counted, by the way of limiting that can be used here."""


@dataclass(frozen=True)
class LimitTrial:
    """A candidate, number ``c`` of the run, that is to answer ``asks`` under limits."""

    c: int
    candidate: Candidate
    asks: Sequence[Ask]
    command: Sequence[str] = COMMAND
    say: Callable[[str], None] = lambda line: None

    def free(self) -> Free:
        """Without a limit.

        Raises:
            MmedgeError: it cannot answer at all.
        """
        self.say(f"{self.candidate.name} without a memory limit")
        with self._place(None) as (place, worker):
            seconds = self._answer(worker, math.inf)
            return Free(seconds, place.peak(worker.pid) or usable_memory())

    def under(self, limit: int, free: Free, tries: int = 0) -> Limit:
        """Whether it answers with ``limit`` bytes, after so many ``tries``. Being killed is a result."""
        self.say(f"{self.candidate.name} with {limit / _MIB:.0f} MiB of memory, try {tries + 1}")
        with self._place(limit) as (place, worker):
            try:
                seconds = self._answer(worker, PATIENCE + PATIENCE * free.seconds)
            except MmedgeError as error:
                return Limit(self.c, limit, False, place.method, _why(error, place))
        note = f"answered {seconds:.1f} s after the start, {free.seconds:.1f} s without a limit"
        return Limit(self.c, limit, True, place.method, note)

    def smallest(self) -> tuple[Limit, ...]:
        """All that was tried, about ten times, until the smallest limit that works was known.

        What worked once, but not with as much or more at another time, did not work.
        """
        free = self.free()
        tried: list[Limit] = []

        def works(limit: int) -> bool:
            tried.append(self.under(limit, free, len(tried)))
            return tried[-1].works

        search(works, free.bytes, usable_memory())
        least = max((each.bytes for each in tried if not each.works), default=0)
        return tuple(_unsure(each) if each.works and each.bytes <= least else each for each in tried)

    @contextmanager
    def _place(self, limit: int | None) -> Iterator[tuple[Confinement, Worker]]:
        """A fresh process in a place of its own; the files that it will read are dropped, so that they are its own."""
        page_cache.drop(files_of(self.candidate))
        command = self.candidate.command or self.command
        with confined(limit) as place, running(self.candidate.name, command, place.through) as worker:
            yield place, worker

    def _answer(self, worker: Worker, patience_s: float) -> float:
        """Seconds from asking for the process to the last answer; it is killed when they are too many."""
        candidate = self.candidate
        with _patient(worker.pid, patience_s):
            worker.wait_until_started()
            worker.load(Load(candidate.bundle, candidate.backend, candidate.threads))
            for ask in self.asks[:MOST_ASKS]:
                worker.ask(ask)
        return (time.perf_counter_ns() - worker.born_ns) / 1e9


def search(works: Callable[[int], bool], first: int, largest: int) -> None:
    """Ask ``works`` for smaller and smaller limits, from the ``first`` guess on, up to ``largest`` where that fails.

    Halves the ratio of what works to what does not until it is `RESOLUTION`.
    """
    high = min(first, largest)
    while not works(high):
        if high == largest:
            return
        high = min(int(high * 1.25), largest)
    while works(low := int(high / REACH)):
        high = low
    while high > RESOLUTION * low:
        middle = int(math.sqrt(high * low))
        high, low = (middle, low) if works(middle) else (high, middle)
    for repeat in range(REPEATS):
        if works(int(high * RESOLUTION**repeat)):
            return


@contextmanager
def _patient(pid: int, seconds: float) -> Iterator[None]:
    """Kill the process group ``pid`` when the block takes longer.

    Raises:
        ResourceError: it did.
    """
    late = threading.Event()

    def kill() -> None:
        late.set()
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    except MmedgeError as error:
        if late.is_set():
            raise ResourceError(f"it had not answered after {seconds:.0f} s") from error
        raise
    finally:
        timer.cancel()


def _why(error: MmedgeError, place: Confinement) -> str:
    return "the kernel killed it: out of memory" if place.killed() else error.message


def _unsure(limit: Limit) -> Limit:
    return replace(limit, works=False, note=f"worked by chance: {limit.note}")
