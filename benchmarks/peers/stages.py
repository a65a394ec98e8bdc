"""Stages of an answer, one after the other: for peers, in whose environments this runs."""

from __future__ import annotations

from contextlib import ExitStack

from mmedge.runtime.clock import Clock


class Stages:
    """The next stage ends the one before."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open = ExitStack()

    def begin(self, name: str) -> None:
        self.end()
        self._open.enter_context(self._clock.stage(name))

    def end(self) -> None:
        self._open.close()
