"""A candidate without a model: a fixed computation of some milliseconds, to see what a machine can resolve."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmedge.profiling.messages import Load
from mmedge.profiling.run import Candidate, Input, Inputs
from mmedge.profiling.worker import main
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Answer, Piece

SIZE = 1 << 16
"""Of an array of float32: it fits the cache of a core."""
REPEATS = 64
"""Of an answer: some milliseconds on a small processor, on one thread."""


class Yardstick:
    """Takes square roots and logarithms on one thread, and says how often."""

    def __init__(self) -> None:
        self.backends: dict[str, str] = {}
        self.numbers = np.linspace(1, 2, SIZE, dtype=np.float32)
        self.result = np.empty_like(self.numbers)

    def answer(
        self,
        task: str,
        picture: bytes,
        text: str | None,
        *,
        limit: int | None,
        show: Callable[[Piece], None],
        clock: Clock,
    ) -> Answer:
        """The same work whatever is asked."""
        with clock.stage("encode"):
            for _ in range(REPEATS):
                np.sqrt(self.numbers, out=self.result)
                np.log(self.result, out=self.result)
        return Answer(f"{REPEATS} times", (), "stop", clock.stages_ms)

    def close(self) -> None:
        """There is nothing to give back."""


def candidate() -> Candidate:
    """To be profiled."""
    command = (sys.executable, "-m", "mmedge.profiling.yardstick")
    return Candidate("fixed computation", "", "", None, {"all": "float32"}, 0, command=command)


def inputs(folder: Path) -> Inputs:
    """Two that are the same work."""
    items = []
    for name in ("one", "two"):
        file = folder / name
        file.write_text(name)
        items.append(Input(name, "caption", str(file)))
    return Inputs("yardstick", "", tuple(items))


def _open(path: Path, *, backend: str | None, threads: int) -> Yardstick:
    return Yardstick()


def _nothing_to_check(order: Load) -> tuple[str, ...]:
    return ()


if __name__ == "__main__":
    main(_open, _nothing_to_check)
