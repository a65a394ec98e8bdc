"""Runs as the first version of the profiler kept them (``mmedge.profile/1``), as runs of today.

What it did not keep stays absent: when an answer was asked for, what identifies the machine, starts second by second.
What it made of its measurements is taken over as it was, not computed again.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mmedge.profiling import older_form as form
from mmedge.profiling.run import (
    SCHEMA,
    Absolute,
    Answer,
    Candidate,
    Energy,
    Flag,
    Input,
    Inputs,
    Machine,
    Made,
    Memory,
    Processor,
    Protocol,
    Ratio,
    Resolution,
    Results,
    Run,
    Sample,
    Validity,
    Verdict,
)

_MARGIN = 0.03
"""Of the first version's verdicts."""
_METRICS = {"answer": "answer_ms", "first_token": "ttft_ms"}
_VERDICTS: dict[str | None, Verdict] = {"faster": "faster", "slower": "slower", "same": "same"}
_ORIGIN = Flag(
    "older",
    "note",
    "an older mmedge kept this run: when answers were asked for, the machine's id and its swap are unknown",
    "measure again to compare it with others",
)


def read_first(raw: bytes) -> Run:
    """Read ``mmedge.profile/1``.

    Raises:
        msgspec.DecodeError: naming what is wrong, and where.
    """
    old = msgspec.json.decode(raw, type=form.Profile)
    settings = old.settings
    texts = {(each.candidate, each.query, each.text): 0 for each in old.runs}
    places = {key: place for place, key in enumerate(texts)}
    return Run(
        schema=SCHEMA,
        mmedge=Made(old.mmedge),
        started=old.begun,
        seed=settings.seed,
        argv=(),
        complete=old.complete,
        machine=_machine(old.machine),
        software=old.software,
        candidates=tuple(_candidate(each, settings.threads) for each in old.candidates),
        inputs=Inputs("", "", tuple(_input(each) for each in old.queries)),
        protocol=_protocol(settings),
        samples=tuple(_samples(old.runs, places)),
        answers=tuple(Answer(*key) for key in places),
        memory=tuple(_memory(each) for each in old.weights),
        energy=_energy(old.machine.power),
        results=_results(old),
        validity=Validity(True, (_ORIGIN, *(Flag("doubt", "warning", each.what, each.advice) for each in old.doubts))),
    )


def _machine(old: form.Machine) -> Machine:
    return Machine(
        id="",
        name=old.name,
        processor=Processor(old.name, old.arch, old.cores, governors=old.before.governors),
        memory=old.memory_mb << 20,
        swap=0,
        kernel=old.kernel,
        system="",
        on_battery=old.before.on_battery,
        board=old.board,
    )


def _candidate(old: form.Candidate, threads: int) -> Candidate:
    return Candidate(old.name, old.bundle, old.digest, old.backend, old.precisions, old.size, threads)


def _input(old: form.Query) -> Input:
    return Input(old.name, old.task, old.picture, old.text, () if old.expected is None else (old.expected,))


def _protocol(old: form.Settings) -> Protocol:
    return Protocol(
        scenario="single",
        interleave="rounds",
        seed=old.seed,
        processes=old.sittings,
        budget_s=0.0,
        precision=0.0,
        margin=_MARGIN,
        limit=old.limit,
        warmup_s=0.0,
        rounds=old.rounds,
        stop_reason="rounds",
    )


def _samples(runs: tuple[form.Answered, ...], places: dict[tuple[int, int, str], int]) -> Iterator[Sample]:
    """As if they had been asked one right after another: their order is all that is known."""
    now = 0
    for each in runs:
        answer_ns = _ns(each.answer_ms)
        yield Sample(
            c=each.candidate,
            process=each.sitting,
            round=each.round,
            input=each.query,
            phase="alone" if each.sitting < 0 else "warmup" if each.round < 0 else "round",
            start_ns=now,
            answer_ns=answer_ns,
            stages_ns={stage: _ns(ms) for stage, ms in each.stages_ms.items()},
            token_ns=tuple(_ns(ms) for ms in each.token_ms),
            answer=places[each.candidate, each.query, each.text],
            energy_mj=each.energy_mj,
        )
        now += answer_ns


def _memory(old: form.Weight) -> Memory:
    """Workers that ran together share pages, so that only the highest mark of theirs means anything."""
    found, alone = old.memory, old.phase == "alone"
    return Memory(
        c=old.candidate,
        stage="steady" if alone else "total",
        pss=found.pss if alone else None,
        pss_anon=found.anonymous if alone else None,
        pss_file=found.pss - found.anonymous if alone else None,
        hwm=found.peak,
        method="smaps_rollup and VmHWM",
    )


def _energy(old: form.Power | None) -> Energy:
    if old is None:
        return Energy(None, "the mmedge that measured did not look for power monitors")
    return Energy("INA" if old.rails else None, old.missing, old.whole, old.rails)


def _results(old: form.Profile) -> Results:
    absolutes = (row for c, result in enumerate(old.results) for row in _absolutes(c, result, old.candidates[c].size))
    ratios = tuple(row for c, result in enumerate(old.results) for row in _ratios(c, result))
    twin = next((row for row in ratios if (row.c, row.metric) == (len(old.candidates) - 1, "answer_ms")), None)
    return Results(tuple(absolutes), ratios, _resolution(twin) if twin else None)


def _absolutes(c: int, old: form.Result, size: int) -> Iterator[Absolute]:
    for metric in old.metrics:
        yield _median(c, _name(metric), metric.ms)
    if old.tokens_per_second:
        yield _median(c, "tokens_per_s", old.tokens_per_second)
    yield _median(c, "cold_ms", old.start_s, 1e3, "files being in memory")
    if old.memory:
        yield Absolute(c, "steady_pss", "value", old.memory.pss, None, None, 1)
        yield Absolute(c, "peak_hwm", "value", old.memory.peak, None, None, 1)
    yield Absolute(c, "bundle_bytes", "value", size, None, None, 1)
    for name, share in (("exact", old.right), ("agreement", old.equal)):
        if share:
            yield Absolute(c, name, "value", share.count / share.of, None, None, share.of)


def _median(c: int, metric: str, old: form.Spread, scale: float = 1.0, note: str = "") -> Absolute:
    return Absolute(c, metric, "median", old.median * scale, None, None, old.count, note=note)


def _ratios(c: int, old: form.Result) -> Iterator[Ratio]:
    for metric in old.metrics:
        if found := metric.ratio:
            verdict = _VERDICTS.get(metric.verdict, "inconclusive")
            yield Ratio(c, 0, _name(metric), found.ratio, found.low, found.high, verdict, n=metric.ms.count)


def _resolution(twin: Ratio) -> Resolution:
    return Resolution(twin.ratio, twin.low, twin.high, max(twin.high, 1 / twin.low) - 1, twin.verdict)


def _name(metric: form.Metric) -> str:
    return _METRICS.get(metric.name, f"{metric.name}_ms")


def _ns(ms: float) -> int:
    return round(ms * 1e6)
