"""Tables of what is measured besides rounds: starts, load, endurance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmedge.profiling.run import Run
from mmedge.profiling.showing.terminal_rows import WIDTH, marks, number, row, table

_START = ("{:<3}", "{:<5}", "{:>8}", "{:>8}", "{:>8}", "{:>8}", "{:>8}", "{:>8}", "{:>8}", "{:>4}")
_LOAD = ("{:<3}", "{:>8}", "{:>8}", "{:>10}", "{:>10}", "{:>10}", "{:>10}", " {}")
_SOAK = ("{:<3}", "{:>7}", "{:>9}", "{:>10}", "{:>8}", "{:>8}", " {}")
_STARTS = ("process", "import", "verify", "compile", "load", "answer")


def starts(run: Run) -> Iterator[str]:
    """The ledger of the first answer: medians in milliseconds."""
    rows = []
    for c, mark in enumerate(marks(run)):
        own = [start for start in run.cold if start.c == c]
        for pages, compiled in dict.fromkeys((start.pages, start.compiled) for start in own):
            alike = [start for start in own if (start.pages, start.compiled) == (pages, compiled)]
            parts = [
                float(np.median([getattr(start, f"{part}_s") for start in alike])) * 1e3 for part in (*_STARTS, "total")
            ]
            rows.append((mark, f"{pages}*" if compiled == "miss" else pages, *map(number, parts), str(len(alike))))
    yield from table(_START, ("", "files", *_STARTS, "start ms", "n"), rows)
    if any(start.compiled == "miss" for start in run.cold):
        yield "* with nothing compiled"


def load(run: Run) -> Iterator[str]:
    """What became of requests that came when they were due."""
    names = marks(run)
    rows = [
        (
            names[load.c],
            number(load.rate) if load.rate else "all",
            str(load.offered),
            *(number(load.response_ms.get(stat)) for stat in ("median", "p99")),
            number(load.throughput),
            number(load.goodput),
            {True: "held", False: "NOT held", None: "unclear" if load.slo else ""}[load.held],
        )
        for load in run.load
    ]
    objectives = " ".join(dict.fromkeys(load.slo for load in run.load))
    heads = ("", "rate/s", "asked", "median ms", "p99 <= ms", "answers/s", "in time/s", objectives)
    yield from table(_LOAD, heads if len(row(_LOAD, heads)) <= WIDTH else (*heads[:-1], "objective"), rows)


def soak(run: Run) -> Iterator[str]:
    """The first minute and the last."""
    rows = []
    for c, mark in enumerate(marks(run)):
        own = sorted((each for each in run.minutes if each.c == c), key=lambda each: each.minute)
        for each in own[:1] + own[1:][-1:]:
            throttled = {True: "THROTTLED", False: "", None: ""}[each.throttled]
            state = number(each.celsius), number(each.mhz)
            rows.append((mark, str(each.minute + 1), str(each.answers), number(each.median_ms), *state, throttled))
    yield from table(_SOAK, ("", "minute", "answers", "median ms", "deg C", "MHz", ""), rows)
