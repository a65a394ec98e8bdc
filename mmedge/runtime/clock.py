"""Where the time of an answer goes, stage by stage."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager


class Clock:
    """Adds up time by stage, and remembers when each began and ended."""

    def __init__(self) -> None:
        self.stages_ns: dict[str, int] = {}
        self.spans: list[tuple[str, int, int]] = []
        """Stage, begin and end, by `time.perf_counter_ns`."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Time the block as a part of this stage."""
        return _Stage(self, name)

    @property
    def stages_ms(self) -> dict[str, float]:
        return {name: spent / 1e6 for name, spent in self.stages_ns.items()}


class _Stage:
    """A stage while it runs; a generator would take three times as long, and answers have a stage for every token."""

    __slots__ = ("_begun", "_clock", "_name")

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock, self._name = clock, name

    def __enter__(self) -> None:
        self._begun = time.perf_counter_ns()

    def __exit__(self, *error: object) -> None:
        ended = time.perf_counter_ns()
        clock, name = self._clock, self._name
        clock.stages_ns[name] = clock.stages_ns.get(name, 0) + ended - self._begun
        clock.spans.append((name, self._begun, ended))
