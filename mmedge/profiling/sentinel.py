"""A small computation that always takes the same time on a machine that nothing disturbs."""

from __future__ import annotations

import hashlib
import time

_WORK = bytes(1 << 20)
"""About a millisecond, in no cache but the last one."""


def sentinel_ns() -> int:
    """Nanoseconds that it takes now, on one thread."""
    started = time.perf_counter_ns()
    hashlib.sha256(_WORK).digest()
    return time.perf_counter_ns() - started
