"""One line per stage of an export: its wall time and the process's peak memory during it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from mmedge.core.report import Stage
from mmedge.signals import raise_if_stopped

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class Watcher(Protocol):
    """Hears of stages as they begin and end."""

    def begin(self, name: str) -> None: ...

    def end(self, stage: Stage) -> None: ...


class Stages:
    """Collects the stages of one export and tells the watcher."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        self.watcher = watcher
        self.done: list[Stage] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Time a block; what the block calls with a text is the stage's note."""
        notes: list[str] = []
        if self.watcher:
            self.watcher.begin(name)
        _reset_peak()
        started = time.perf_counter()
        yield notes.append
        raise_if_stopped()
        stage = Stage(name, round(time.perf_counter() - started, 3), _peak_mb(), "; ".join(notes))
        self.done.append(stage)
        if self.watcher:
            self.watcher.end(stage)


def _reset_peak() -> None:
    """Let the kernel count the peak anew (Linux 4.0; elsewhere the peak is that of the whole run)."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return


def _peak_mb() -> float:
    """Peak resident memory since the last reset, MiB."""
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return round(int(line.split()[1]) / 1024, 1)
