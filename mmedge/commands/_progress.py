"""How far work on many things is, on the last line of a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable

from mmedge.core.names import readable

PATIENCE_S = 2.0
"""What takes no longer shows no bar."""
WIDTH = 24
"""Characters of the bar alone."""


class Bar:
    """A bar on standard error, if that is a terminal; gone when the ``with`` block ends."""

    def __init__(self, total: int, *, hidden: bool = False, now: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self.live = not hidden and total > 1 and sys.stderr is not None and sys.stderr.isatty()
        self._now = now
        self._begun = now()
        self._shown = False

    def step(self, name: str) -> None:
        """One more is done."""
        self.done += 1
        seconds = self._now() - self._begun
        if self.live and seconds > PATIENCE_S and self.done < self.total:
            line = f"{drawn(self.done, self.total, seconds)}  {readable(name)}"
            print(line[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)
            self._shown = True

    def clear(self) -> None:
        """Make room for a line of text."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        self._shown = False

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()


def drawn(done: int, total: int, seconds: float) -> str:
    """A bar, the numbers, and how long the rest takes if it goes on like that."""
    full = WIDTH * done // total
    left = round(seconds / done * (total - done))
    return f"[{'#' * full}{'.' * (WIDTH - full)}] {done}/{total}, {left // 60}:{left % 60:02} left"
