"""How every bundle of a run compares with every other program in it, by the pairs of their rounds.

Times and memory as shares of the other's, tokens a second as a multiple. A run's own results compare with its first
candidate only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmedge.profiling.candidates import AGAIN
from mmedge.profiling.numbers.estimates import RATE, Table, table_of
from mmedge.profiling.numbers.ratios import estimate, log_ratios
from mmedge.profiling.run import Run

START = "start_to_first_token_ms"
MEMORY = "peak_pss"
MEASURES = ("ttft_ms", RATE, "encode_ms", START, MEMORY)


def summary(run: Run) -> dict[str, Any]:
    """What each candidate takes, and each bundle beside each peer; beside the first candidate where there is none."""
    names = [each.name for each in run.candidates]
    own = [c for c, name in enumerate(names) if not name.endswith(AGAIN)]
    bundles = [c for c in own if not run.candidates[c].command] or own[1:]
    peers = [c for c in own if run.candidates[c].command] if bundles != own[1:] else own[:1]
    table = table_of(run.rounds, len(names), whole=run.energy.whole)
    pairs = [row for c in bundles for peer in peers for row in _pair(run, table, c, peer)]
    return {
        "machine": run.machine.name,
        "started": run.started,
        "rounds": run.protocol.rounds,
        "processes": len({*table.processes.tolist()}),
        "tokens": run.protocol.limit,
        "software": run.software,
        "candidates": {names[c]: dict(_taken(run, table, c)) for c in own},
        "pairs": pairs,
        "roofline": {names[c]: dict(_shares(run, c)) for c in bundles if run.roofline},
    }


def starts_of(run: Run, c: int) -> dict[int, float]:
    """Milliseconds from asking for a process to its first token, by group of processes; files were in memory."""
    first = {sample.process: sample for sample in reversed(run.samples) if sample.c == c and sample.phase == "warmup"}
    starts = [start for start in run.cold if (start.c, start.pages) == (c, "warm")]
    groups = sorted(first)
    assert len(groups) == len(starts), "a start of a process is missing, or its first answer"
    opened = ((start.total_s - start.answer_s) * 1e3 for start in starts)
    return {
        group: ready + first[group].token_ns[0] / 1e6
        for group, ready in zip(groups, opened, strict=True)
        if first[group].token_ns
    }


def _taken(run: Run, table: Table, c: int) -> Iterator[tuple[str, float]]:
    for measure in MEASURES:
        values, _ = _values(run, table, measure, c)
        if known := [value for value in values if not math.isnan(value)]:
            yield measure, round(float(np.median(known)), 3)


def _shares(run: Run, c: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each stage, how much of its time the machine needs at its best, and for what."""
    for roof in run.roofline:
        if roof.c == c and roof.valid:
            yield roof.stage, {"share": round(roof.share, 3), "ms": round(roof.measured_ms, 2), "bound": roof.bound}


def _pair(run: Run, table: Table, c: int, peer: int) -> Iterator[dict[str, Any]]:
    named = {"candidate": run.candidates[c].name, "peer": run.candidates[peer].name}
    for measure in MEASURES:
        (own, groups), (theirs, _) = _values(run, table, measure, c), _values(run, table, measure, peer)
        if len(own) != len(theirs):
            continue
        logs = log_ratios(own, theirs)
        if len(logs[~np.isnan(logs)]) == 1:
            yield named | {"measure": measure, "ratio": round(float(np.exp(np.nanmax(logs))), 4)}
        elif found := estimate(logs, groups):
            ratio, low, high = (round(math.exp(each), 4) for each in (found.value, found.low, found.high))
            yield named | {"measure": measure, "ratio": ratio, "low": low, "high": high}


def _values(run: Run, table: Table, measure: str, c: int) -> tuple[np.ndarray, np.ndarray]:
    """By round, or by start, or one value; and the group of processes of each."""
    if measure == START:
        starts = starts_of(run, c)
        return np.array([*starts.values()]), np.array([*starts])
    if measure == MEMORY:
        found = run.absolute(c, MEMORY, "value")
        return np.array([found.value] if found and found.value is not None else []), np.zeros(1, int)
    values = table.values.get(measure)
    return (values[c] if values is not None else np.array([])), table.processes
