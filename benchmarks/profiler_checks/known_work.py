"""A worker that answers by a fixed amount of work, and a planted delay: the real protocol and clock around both.

Run as ``python known_work.py PARENT``. The bundle that it is told to load is a JSON file: ``more`` is the share by
which an answer takes longer than its work did just then, so that the ratio is exact whatever the machine does
meanwhile. It is waited for awake: who sleeps may find its core taken, and is late by what others do.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from mmedge.profiling.worker import main
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Answer

SIDE = 224
"""Of the matrices that are multiplied: a few milliseconds."""


class KnownWork:
    """A pipeline without a model."""

    def __init__(self, path: Path, backend: str | None, threads: int) -> None:
        self.backends: dict[str, str] = {}
        self.more: float = json.loads(path.read_text())["more"]
        self.matrix = np.random.default_rng(1).standard_normal((SIDE, SIDE)) / SIDE

    def answer(self, task, picture, text, *, limit, show, clock: Clock) -> Answer:
        began = time.perf_counter_ns()
        with clock.stage("encode"):
            found = np.eye(SIDE)
            for _ in range(8):
                found = np.tanh(found @ self.matrix)
        with clock.stage("decode_loop"):
            wait_until(began + int((time.perf_counter_ns() - began) * (1 + self.more)))
        return Answer("known", (), "stop", clock.stages_ms)

    def close(self) -> None:
        pass


def wait_until(moment_ns: int) -> None:
    """Awake."""
    while time.perf_counter_ns() < moment_ns:
        pass


if __name__ == "__main__":
    main(KnownWork, lambda order: ())
