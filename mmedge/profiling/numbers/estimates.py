"""From samples to results: medians with intervals, percentiles with bounds, ratios with verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from mmedge.profiling.numbers import quality, validity
from mmedge.profiling.numbers.disturbances import decides_nothing, flagged_rounds
from mmedge.profiling.numbers.growth import fits_of, worst_of
from mmedge.profiling.numbers.other_measures import median_of, others_of
from mmedge.profiling.numbers.percentiles import PERCENTILES, bound_of
from mmedge.profiling.numbers.ratios import bias_of, estimate, floor_of, judge, log_ratios
from mmedge.profiling.run import OTHER, STAGES, Absolute, Candidate, Ratio, Resolution, Results, Run, Sample

RATE = "tokens_per_s"
"""Better when it is higher, and so without a ratio: that of ``tpot_ms`` is the same upside down."""
WHOLE = ("answer_ms", "ttft_ms", "tpot_ms", "itl_ms")
"""Measures that people ask percentiles of."""
OF_TASKS = ("answer_ms", "ttft_ms", "tpot_ms")
"""Measures that are told of each task too where there are several, as in ``caption.answer_ms``; with the rate."""


def finished(run: Run) -> Run:
    """The run with everything filled in that is made of what was measured."""
    flagged = flagged_rounds(run.host, run.sentinel)
    samples = tuple(
        replace(sample, flags=flagged[sample.round])
        if sample.phase == "round" and sample.flags != flagged.get(sample.round, ()) and sample.round in flagged
        else sample
        for sample in run.samples
    )
    marked = replace(run, samples=samples)
    scored = replace(marked, quality=quality.scores_of(marked))
    judged = replace(scored, results=results_of(scored))
    return replace(judged, validity=validity.validity_of(judged))


def results_of(run: Run) -> Results:
    """Everything that people ask of a run, over all rounds, and its ratios over those without flags too."""
    table = table_of(run.rounds, len(run.candidates), whole=run.energy.whole)
    ratios, aa = _ratios(table, run.protocol.margin)
    if decides_nothing(run.samples):
        ratios = tuple(replace(ratio, verdict="inconclusive") for ratio in ratios)
    return Results(
        abs=(*_absolutes(run, table), *others_of(run)), ratios=ratios, aa=aa, fits=fits_of(run), worst=worst_of(run)
    )


def half_width(samples: Iterable[Sample], candidates: Sequence[Candidate]) -> float:
    """The widest half of an interval among the answers' ratios to the baseline's, as a share; infinite for too few."""
    rounds = [sample for sample in samples if sample.phase == "round"]
    table = table_of(rounds, len(candidates), only_answers=True)
    answers = table.values.get("answer_ms")
    if answers is None:
        return math.inf
    found = [estimate(log_ratios(own, answers[0]), table.processes) for own in answers[1:]]
    return max(
        (math.expm1(each.half_width) if each and each.processes > 1 else math.inf for each in found), default=0.0
    )


@dataclass(frozen=True)
class Table:
    """Measures by candidate and round."""

    processes: np.ndarray
    """By round: the group of processes."""
    clean: np.ndarray
    """By round: whether nobody's answer has a flag."""
    values: dict[str, np.ndarray]
    """By measure: ``[candidate, round]``, NaN where there is none."""


def table_of(samples: Sequence[Sample], candidates: int, *, whole: str = "", only_answers: bool = False) -> Table:
    """Of answers in rounds; ``whole`` is the power rail that carries all others."""
    places = {number: at for at, number in enumerate(sorted({sample.round for sample in samples}))}
    table = Table(np.zeros(len(places), int), np.ones(len(places), bool), {})
    for sample in samples:
        at = places[sample.round]
        table.processes[at] = sample.process
        table.clean[at] &= not sample.flags
        for name, value in (("answer_ms", sample.answer_ns / 1e6),) if only_answers else _measures(sample, whole):
            if name not in table.values:
                table.values[name] = np.full((candidates, len(places)), np.nan)
            table.values[name][sample.c, at] = value
    return table


def _measures(sample: Sample, whole: str) -> Iterator[tuple[str, float]]:
    """What one answer tells; what needs two tokens is absent where there are fewer."""
    yield "answer_ms", sample.answer_ns / 1e6
    tokens = sample.token_ns
    if tokens:
        yield "ttft_ms", tokens[0] / 1e6
    if len(tokens) > 1 and tokens[-1] > tokens[0]:
        per_token = (tokens[-1] - tokens[0]) / (len(tokens) - 1)
        yield "tpot_ms", per_token / 1e6
        yield RATE, 1e9 / per_token
    for stage, took in sample.stages_ns.items():
        yield f"{stage}_ms", took / 1e6
    yield f"{OTHER}_ms", (sample.answer_ns - sum(sample.stages_ns.values())) / 1e6
    if whole in sample.energy_mj:
        yield "answer_mj", sample.energy_mj[whole]


def stages_of(run: Run) -> tuple[str, ...]:
    """Every stage that any answer went through, in order."""
    seen = dict.fromkeys(stage for sample in run.rounds for stage in sample.stages_ns)
    return (*(stage for stage in STAGES if stage in seen), *(stage for stage in seen if stage not in STAGES))


def _absolutes(run: Run, table: Table) -> Iterator[Absolute]:
    for c in range(len(run.candidates)):
        for metric, values in table.values.items():
            if metric not in ("answer_mj", RATE):
                yield from _stats(c, metric, values[c], table.processes)
        gaps = [(s.process, gap) for s in run.rounds if s.c == c for gap in np.diff(s.token_ns)]
        if gaps:
            processes, values = np.array(gaps).T
            yield from _stats(c, "itl_ms", values / 1e6, processes)
    for task in run.tasks if len(run.tasks) > 1 else ():
        yield from _of_task(run, task)


def _of_task(run: Run, task: str) -> Iterator[Absolute]:
    """Answers of several tasks are different work: the median of all lies between them, where no answer may."""
    own = [sample for sample in run.rounds if run.inputs.items[sample.input].task == task]
    table = table_of(own, len(run.candidates))
    for metric in (each for each in OF_TASKS if each in table.values):
        for c, values in enumerate(table.values[metric]):
            yield from _stats(c, f"{task}.{metric}", values, table.processes)


def _stats(c: int, metric: str, values: np.ndarray, processes: np.ndarray) -> Iterator[Absolute]:
    known = values[~np.isnan(values)]
    if not len(known):
        return
    middle = median_of(c, metric, values, processes)
    yield middle
    if metric.endswith("tpot_ms"):
        yield _rate(middle)
    yield Absolute(c, metric, "mean", float(known.mean()), None, None, len(known))
    if metric.rpartition(".")[2] in WHOLE:
        for stat, share in PERCENTILES.items():
            bound = bound_of(known, share)
            yield Absolute(c, metric, stat, bound.value, None, bound.high, bound.n, bound.enough, bound.note)
        yield Absolute(c, metric, "max", float(known.max()), None, None, len(known))


def _rate(per_token: Absolute) -> Absolute:
    """Tokens a second: the same upside down."""
    value, high, low = (1e3 / each if each else None for each in (per_token.value, per_token.low, per_token.high))
    return replace(per_token, metric=per_token.metric.replace("tpot_ms", RATE), value=value, low=low, high=high)


def _ratios(table: Table, margin: float) -> tuple[tuple[Ratio, ...], Resolution | None]:
    """All of them, each measure judged by what the baseline and its twin, the last, differ in it."""
    ratios: list[Ratio] = []
    resolution = None
    for metric, values in table.values.items():
        if metric == RATE:
            continue
        logs = [log_ratios(own, values[0]) for own in values[1:]]
        found = [estimate(each, table.processes) for each in logs]
        clean = [estimate(each[table.clean], table.processes[table.clean]) for each in logs]
        twin = found[-1] if found else None
        verdicts = [*judge(found[:-1], margin, bias_of(twin)), *judge(found[-1:], margin)]
        for c, (each, (verdict, p), calm) in enumerate(zip(found, verdicts, clean, strict=True), 1):
            if each:
                middle, low, high = (math.exp(value) for value in (each.value, each.low, each.high))
                seen = math.exp(calm.value) if calm else None
                ratios.append(Ratio(c, 0, metric, middle, low, high, verdict, p, seen, each.n))
        if metric == "answer_ms" and twin:
            itself = ratios[-1]
            resolution = Resolution(itself.ratio, itself.low, itself.high, floor_of(twin), itself.verdict)
    return tuple(ratios), resolution
