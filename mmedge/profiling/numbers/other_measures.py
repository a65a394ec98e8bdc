"""Measures of candidates that are no times of answers: memory, size, starts, energy, load, heat, quality."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from mmedge.profiling.load.load import highest_rate
from mmedge.profiling.load.soak import sustained
from mmedge.profiling.numbers.ratios import estimate
from mmedge.profiling.run import Absolute, Cold, Memory, Run

STEADY = "steady"
PARTS = ("process", "import", "verify", "compile", "load", "answer", "total")
FEWEST = 3
"""Groups of processes, or starts, below which a range of them says nothing."""


def others_of(run: Run) -> Iterator[Absolute]:
    """All that the run tells, candidate by candidate; what was not measured is absent."""
    for c, candidate in enumerate(run.candidates):
        yield from _memory([row for row in run.memory if row.c == c])
        yield _value(c, "bundle_bytes", candidate.size)
        yield from _starts(run, c)
        yield from _energy(run, c)
        yield from _load(run, c)
        yield from _soak(run, c)
        yield from _quality(run, c)


def _memory(rows: list[Memory]) -> Iterator[Absolute]:
    steady = [row for row in rows if row.stage == STEADY]
    for metric, chosen, size in (
        ("peak_pss", rows, _with_gpu),
        ("steady_pss", steady, _with_gpu),
        ("peak_hwm", rows, lambda row: row.hwm),
        ("peak_gpu", rows, lambda row: row.gpu),
    ):
        known = [(found, row) for row in chosen if (found := size(row)) is not None]
        if known:
            highest, row = max(known, key=lambda each: each[0])
            unified = "with what the GPU holds of it" if row.unified and row.gpu and metric.endswith("pss") else ""
            yield _value(row.c, metric, highest, note=unified or row.method)


def _with_gpu(row: Memory) -> int | None:
    """The GPU's part lies in the same memory on boards, but in no page table that PSS counts."""
    return None if row.pss is None else row.pss + (row.gpu or 0 if row.unified else 0)


def _starts(run: Run, c: int) -> Iterator[Absolute]:
    """``cold_ms`` and ``cold_<part>_ms``; ``warm_...`` where the bundle's files were in memory already. Starts that had
    to compile are ``cold_miss_ms`` and ``warm_miss_ms``: they are another thing altogether."""
    for pages in ("cold", "warm"):
        starts = [start for start in run.cold if (start.c, start.pages) == (c, pages)]
        ready = [start for start in starts if start.compiled != "miss"]
        for part in PARTS if ready else ():
            yield _start(c, f"{pages}_ms" if part == "total" else f"{pages}_{part}_ms", ready, part)
        if missed := [start for start in starts if start.compiled == "miss"]:
            yield _start(c, f"{pages}_miss_ms", missed, "total")


def _start(c: int, metric: str, starts: list[Cold], part: str) -> Absolute:
    """The median, from the lowest to the highest."""
    values = np.array([getattr(start, f"{part}_s") for start in starts]) * 1e3
    enough = len(starts) >= FEWEST
    low, high = (float(values.min()), float(values.max())) if enough else (None, None)
    return Absolute(c, metric, "median", float(np.median(values)), low, high, len(starts), enough)


def _energy(run: Run, c: int) -> Iterator[Absolute]:
    """Of the rail that carries all others, or of every rail by name: they are not to be added up."""
    for rail in [run.energy.whole] if run.energy.whole else run.energy.rails:
        own = [sample for sample in run.rounds if sample.c == c and rail in sample.energy_mj and sample.answer_ns]
        suffix, idle = "" if run.energy.whole else f":{rail}", run.energy.idle_w.get(rail)
        if own:
            drawn, took, processes = np.array(
                [(s.energy_mj[rail], s.energy_s * 1e3 or s.answer_ns / 1e6, s.process) for s in own]
            ).T
            yield median_of(c, f"answer_mj{suffix}", drawn, processes)
            if idle is not None:
                yield median_of(c, f"watts_above_idle{suffix}", drawn / took - idle, processes)


def _load(run: Run, c: int) -> Iterator[Absolute]:
    """``max_rate``: the highest that is known to keep the objective."""
    own = [load for load in run.load if load.c == c]
    if any(load.slo for load in own):
        rate = highest_rate(own, c)
        note = own[0].slo if rate else f"{own[0].slo}: kept at no rate that was tried"
        yield Absolute(c, "max_rate", "value", rate, None, None, len(own), bool(rate), note)


def _soak(run: Run, c: int) -> Iterator[Absolute]:
    """The last minute's answer time by the first's."""
    minutes = [each for each in run.minutes if each.c == c]
    for found in sustained(minutes):
        if found.first.median_ms:
            yield _value(c, "soak_slowdown", found.last.median_ms / found.first.median_ms, n=len(minutes))


def _quality(run: Run, c: int) -> Iterator[Absolute]:
    for score in run.quality:
        if score.c == c:
            for metric, value, per_input in (
                (score.metric, score.mean, score.per_input),
                ("agreement", score.agreement, score.agree),
            ):
                if metric and value is not None:
                    yield Absolute(c, metric, "mean", value, None, None, sum(each is not None for each in per_input))


def median_of(c: int, metric: str, values: np.ndarray, processes: np.ndarray) -> Absolute:
    """The mean of the processes' medians with its interval, on logarithms as ratios are where all are above 0.

    Args:
        values: NaN where there is none.
        processes: number the group of each.
    """
    known = values[~np.isnan(values)]
    on_logs = bool((known > 0).all())
    found = estimate(np.log(values) if on_logs else values, processes)
    if found is None:
        return Absolute(c, metric, "median", float(np.median(known)), None, None, len(known), False)
    value, low, high = (math.exp(each) if on_logs else each for each in (found.value, found.low, found.high))
    if found.processes < FEWEST:
        return Absolute(c, metric, "median", value, None, None, found.n, False)
    return Absolute(c, metric, "median", value, low, high, found.n)


def _value(c: int, metric: str, value: float, n: int = 1, note: str = "") -> Absolute:
    return Absolute(c, metric, "value", value, None, None, n, note=note)
