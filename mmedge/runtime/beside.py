"""Things that are done at the same time, in threads that know what the thread that asks for them knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def beside_each_other(make: Callable[[Given], Made], things: Sequence[Given]) -> list[Made]:
    """What ``make`` makes of each, in their order; of the last in this thread."""
    if not things:
        return []
    *others, last = things
    with ThreadPoolExecutor(max(1, len(others))) as pool:
        begun = [pool.submit(copy_context().run, make, thing) for thing in others]
        made = make(last)
    return [*(each.result() for each in begun), made]
