"""A run as a trace that Perfetto and chrome://tracing open: what happened when, in every process and on the machine.

The format is the JSON object of the Trace Event Format: complete events (X), instants (i), counters (C) and names (M).
Times are microseconds. Slices of one thread must nest, so that answers which overlap get threads of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from mmedge.profiling.run import OTHER, STAGES, Run, Sample

Event: TypeAlias = dict[str, Any]

HOST = 0
"""Process of the machine's counters."""
_US = 1e3
_ASSUMED = "stages laid end to end, in order: when each began was not measured"


def trace_of(run: Run) -> dict[str, Any]:
    """Every sample as a slice with its stages and tokens, and counters beside them."""
    pids: dict[tuple[int, int], int] = {}
    for sample in run.samples:
        pids.setdefault((sample.c, sample.process), len(pids) + 1)
    events = [*_host(run)]
    for (c, process), pid in sorted(pids.items()):
        own = [sample for sample in run.samples if (sample.c, sample.process) == (c, process)]
        events += _process(run, pid, c, process, own)
    return {
        "displayTimeUnit": "ms",
        "otherData": {"mmedge": run.mmedge.version, "started": run.started, "complete": run.complete},
        "traceEvents": events,
    }


def _process(run: Run, pid: int, c: int, process: int, samples: list[Sample]) -> Iterator[Event]:
    candidate = run.candidates[c]
    name = (
        candidate.name + (" (unverified)" if candidate.unverified else "") + ("" if run.complete else " (incomplete)")
    )
    yield _named("process_name", pid, 0, name=f"{name}, {'alone' if process < 0 else f'process {process}'}")
    yield _named("process_sort_index", pid, 0, sort_index=pid)
    lanes = _lanes(samples)
    for lane in range(max(lanes, default=0) + 1):
        yield _named("thread_name", pid, lane + 1, name="answers" if lane == 0 else f"answers at the same time {lane}")
    for sample, lane in zip(sorted(samples, key=_start), lanes, strict=True):
        yield from _sample(run, pid, lane + 1, sample)


def _lanes(samples: Iterable[Sample]) -> list[int]:
    """By sample in order of time: the first thread that is free by then."""
    ends: list[int] = []
    found = []
    for sample in sorted(samples, key=_start):
        free = (lane for lane, end in enumerate(ends) if end <= sample.start_ns)
        lane = next(free, len(ends))
        ends[lane : lane + 1] = [sample.start_ns + sample.answer_ns]
        found.append(lane)
    return found


def _start(sample: Sample) -> int:
    return sample.start_ns


def _sample(run: Run, pid: int, tid: int, sample: Sample) -> Iterator[Event]:
    item, answer = run.inputs.items[sample.input], run.answers[sample.answer]
    told = {
        "input": item.id,
        "file": item.file,
        "question": item.text,
        "answer": answer.text,
        "round": sample.round,
        "phase": sample.phase,
        "flags": list(sample.flags),
        "due_us": None if sample.due_ns is None else sample.due_ns / _US,
        "stages": "as measured" if sample.spans else _ASSUMED,
    }
    yield _slice(pid, tid, f"{sample.phase}: {item.id}", sample.start_ns, sample.answer_ns, told)
    for stage, begin, end in sample.spans or _assumed(sample):
        if end > begin:
            yield _slice(
                pid, tid, stage if sample.spans else f"{stage} (laid out)", sample.start_ns + begin, end - begin
            )
    for number, at in enumerate(sample.token_ns):
        yield {
            "ph": "i", "s": "t", "name": f"token {number}", "pid": pid, "tid": tid, "ts": (sample.start_ns + at) / _US,
        }  # fmt: skip


def _assumed(sample: Sample) -> Iterator[tuple[str, int, int]]:
    """Stages one after another, and what they leave over at the end."""
    begin = 0
    for stage in sorted(sample.stages_ns, key=lambda name: STAGES.index(name) if name in STAGES else len(STAGES)):
        end = min(begin + sample.stages_ns[stage], sample.answer_ns)
        yield stage, begin, end
        begin = end
    yield OTHER, begin, sample.answer_ns


def _host(run: Run) -> Iterator[Event]:
    yield _named("process_name", HOST, 0, name=run.machine.name or "machine")
    yield _named("process_sort_index", HOST, 0, sort_index=-1)
    begins: dict[int, int] = {}
    for sample in run.rounds:
        begins[sample.round] = min(sample.start_ns, begins.get(sample.round, sample.start_ns))
    for sentinel in run.sentinel:
        if sentinel.round in begins:
            yield _counter("sentinel, ms", begins[sentinel.round], sentinel.ns / 1e6)
    for host in run.host:
        yield from _counter_if("temperature, °C", host.t_ns, host.celsius)
        yield from _counter_if("MHz", host.t_ns, host.mhz)
        yield from _counter_if("steal, %", host.t_ns, None if host.steal is None else 100 * host.steal)
        for resource, percentage in host.pressure.items():
            yield _counter(f"{resource} pressure, %", host.t_ns, percentage)


def _counter_if(name: str, at_ns: int, value: float | None) -> Iterator[Event]:
    """Nothing where the machine does not tell: a counter that is not there is not 0."""
    if value is not None:
        yield _counter(name, at_ns, value)


def _counter(name: str, at_ns: int, value: float) -> Event:
    return {"ph": "C", "name": name, "pid": HOST, "tid": 0, "ts": at_ns / _US, "args": {"value": value}}


def _slice(pid: int, tid: int, name: str, at_ns: int, ns: int, told: dict[str, Any] | None = None) -> Event:
    event = {"ph": "X", "name": name, "cat": "mmedge", "pid": pid, "tid": tid, "ts": at_ns / _US, "dur": ns / _US}
    return event if told is None else {**event, "args": told}


def _named(what: str, pid: int, tid: int, **told: object) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": told}
