"""A worker whose threads, and a process it started, never rest, as those of engines that wait for work do."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from mmedge.profiling.worker import main
from mmedge.runtime.pipeline import Answer


def spin() -> None:
    while True:
        pass


class Spinning:
    """A pipeline with two such threads and a child."""

    def __init__(self, path: Path, backend: str | None, threads: int) -> None:
        self.backends: dict[str, str] = {}
        for _ in range(2):
            threading.Thread(target=spin, daemon=True).start()
        self.child = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def answer(self, task, picture, text, *, limit, show, clock) -> Answer:
        return Answer("", (), "stop", {})

    def close(self) -> None:
        self.child.kill()


if __name__ == "__main__":
    main(Spinning)
