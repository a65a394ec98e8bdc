"""A worker that answers by taking known amounts of memory: the real protocol and clock around allocations.

Run as ``python known_memory.py PARENT``. It is asked with a text that is JSON: a list of ``[stage, kind, bytes]``, done
in turn. Before all of them lies the stage ``read``, in which nothing is taken.
"""

from __future__ import annotations

import json
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mmedge.profiling.worker import main
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Answer

PAGE = mmap.PAGESIZE
HOLD_S = 0.1
"""Several looks of the profiler."""


class KnownMemory:
    """A pipeline that only takes memory."""

    def __init__(self, path: Path, backend: str | None, threads: int) -> None:
        self.backends: dict[str, str] = {}
        if size := int(path.read_text() or 0):
            touch(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def answer(self, task, picture, text, *, limit, show, clock: Clock) -> Answer:
        with clock.stage("read"):
            time.sleep(HOLD_S)
        for stage, kind, size in json.loads(text):
            with clock.stage(stage):
                KINDS[kind](size)
        return Answer("", (), "stop", clock.stages_ms)

    def close(self) -> None:
        pass


def touch(block: mmap.mmap, write: bool = True) -> mmap.mmap:
    """Have every page there."""
    for place in range(0, len(block), PAGE):
        if write:
            block[place] = 1
        else:
            _ = block[place]
    return block


def anon(size: int) -> None:
    block = touch(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    time.sleep(HOLD_S)
    block.close()


def file(size: int) -> None:
    with tempfile.TemporaryFile(dir=Path.cwd()) as opened:
        for _ in range(size // (1 << 20)):
            opened.write(os.urandom(1 << 10) * 1024)
        opened.flush()
        block = touch(mmap.mmap(opened.fileno(), size, prot=mmap.PROT_READ), write=False)
        time.sleep(HOLD_S)
        block.close()


def shared(size: int) -> None:
    """By two processes: each has all of it resident, together they have it once."""
    block = touch(mmap.mmap(-1, size))
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        touch(block, write=False)
        os.write(told, b".")
        time.sleep(4 * HOLD_S)
        os._exit(0)
    os.read(ready, 1)
    os.waitpid(child, 0)
    block.close()


def freed(size: int) -> None:
    """Given back before anything else is done: what is held then must not be counted."""
    touch(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)).close()


def spike(size: int) -> None:
    """There for a millisecond, between two looks; taken at once, so that taking it does not last longer."""
    time.sleep(HOLD_S)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    time.sleep(0.001)
    block.close()
    time.sleep(HOLD_S)


def nothing(size: int) -> None:
    time.sleep(HOLD_S)


KINDS: dict[str, Callable[[int], None]] = {
    "anon": anon,
    "file": file,
    "shared": shared,
    "freed": freed,
    "spike": spike,
    "nothing": nothing,
}

if __name__ == "__main__":
    assert sys.platform == "linux"
    main(KnownMemory)
