"""Where the seconds of opening a bundle go: noted by those who spend them, for whoever listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal, TypeAlias

Compiled: TypeAlias = Literal["hit", "miss", "none"]
"""Whether compiled graphs were there; ``none`` where nothing has to be compiled."""


@dataclass
class Ledger:
    """What was spent while it listened."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By name; what is spent inside something else, or beside it in another thread, counts for that alone."""
    compiled: Compiled = "none"
    """One graph that had to be compiled makes it a miss."""
    lock: Lock = field(default_factory=Lock)
    """Held while something is spent."""


_listening: ContextVar[Ledger | None] = ContextVar("_listening", default=None)


@contextmanager
def listening(ledger: Ledger) -> Iterator[None]:
    """What is spent in the block is noted in ``ledger``."""
    token = _listening.set(ledger)
    try:
        yield
    finally:
        _listening.reset(token)


@contextmanager
def spent(name: str) -> Iterator[None]:
    """The block's time is spent on ``name``."""
    ledger = _listening.get()
    if ledger is None or not ledger.lock.acquire(blocking=False):
        yield
        return
    started = time.perf_counter()
    try:
        yield
    finally:
        ledger.seconds[name] = ledger.seconds.get(name, 0.0) + time.perf_counter() - started
        ledger.lock.release()


def tell_compiled(found: bool) -> None:
    """A compiled graph was ``found``, or has to be made."""
    if ledger := _listening.get():
        ledger.compiled = "hit" if found and ledger.compiled != "miss" else "miss"
