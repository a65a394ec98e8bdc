"""The signals that end a process, turned into an exception so that every `with` block cleans up."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")

REPEAT_SECONDS = 2.0
"""A second Ctrl-C within this time leaves the cleaning up alone that the first one started."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SIGNALLED = 128
"""Exit codes above this one add the number of a signal, as shells do."""


class Stopped(KeyboardInterrupt):
    """A signal asks this process to end; only `with` and `finally` see it, as they see a KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = SIGNALLED + number


stopped: list[Stopped] = []
"""Signals that came: code of others may swallow the exception, or make it one of its own as safetensors does."""


def raise_on_signals() -> None:
    """From now on a signal raises `Stopped` in the main thread."""
    last = -REPEAT_SECONDS

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last >= REPEAT_SECONDS:
            last = time.monotonic()
            stopped.append(Stopped(number))
            raise stopped[-1]

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that come during the block are raised when it ends: for steps that must be remembered once taken."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # may raise one that came before, with the mask already set
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_its_own_thread(work: Callable[[], Result]) -> Result:
    """What ``work`` returns or raises, for work that no exception may interrupt just anywhere: signals raise in the
    main thread alone, which waits for it.

    Interrupted, the work goes on to its end with nobody waiting for it. So it must not touch files, and must itself
    undo what it does to the process. A process that ends by `sys.exit` lets it finish; the command line leaves at once.
    """
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(copy_context().run, work).result()
    finally:
        pool.shutdown(wait=False)


def raise_if_stopped() -> None:
    """Raise what code of others has swallowed; called between the stages of long work."""
    if stopped:
        raise stopped[-1]
