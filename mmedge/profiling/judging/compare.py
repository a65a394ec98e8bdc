"""Two runs beside each other, or the candidates of one: what differs, by how much, and whether that may be said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from mmedge.errors import UsageError
from mmedge.profiling.judging.apart import Series, drift, ratio_apart, series_of
from mmedge.profiling.judging.comparison import (
    INCOMPLETE,
    INVALID,
    SCHEMA,
    UNPAIRED,
    UNVERIFIED,
    Changed,
    Comparison,
    Difference,
    Match,
    Pair,
    Quality,
    Side,
)
from mmedge.profiling.judging.matching import (
    Subject,
    common_inputs,
    doubts_of,
    is_same_machine,
    is_same_run,
    matched,
    others_of,
)
from mmedge.profiling.judging.quality_apart import judged_apart
from mmedge.profiling.numbers.estimates import RATE
from mmedge.profiling.numbers.quality import task_of
from mmedge.profiling.numbers.ratios import Estimate, bias_between, judge
from mmedge.profiling.run import Run, Verdict

VALUES = (
    "peak_pss",
    "steady_pss",
    "peak_hwm",
    "peak_gpu",
    "bundle_bytes",
    "cold_ms",
    "cold_miss_ms",
    "warm_ms",
    "max_rate",
)
"""Measures that are no times of answers in rounds."""


def compare(a: Run, b: Run, files: tuple[str, str], *, unpaired: bool = False) -> Comparison:
    """Compare ``b`` with ``a``: candidate by candidate where they are two runs, with the baseline where they are one.

    Args:
        files: what the runs are called.
        unpaired: accept two runs that were measured apart, and label all that is said of them.

    Raises:
        UsageError: they were measured apart and that is not accepted; nothing in them is the same.
    """
    if is_same_run(a, b):
        whole = max(a, b, key=lambda run: (run.complete, len(run.samples)))
        return _comparison(a, b, files, tuple(_within(whole)), len(whole.inputs.items))
    if not unpaired:
        raise _refused(a, b, files)
    numbers = common_inputs(a, b, files)
    pairs = tuple(
        (Subject(a, one, numbers[0]), Subject(b, two, numbers[1]), how) for one, two, how in matched(a, b, files)
    )
    return _comparison(a, b, files, tuple(_apart(pairs)), len(numbers[0]))


def _refused(a: Run, b: Run, files: tuple[str, str]) -> UsageError:
    if is_same_machine(a, b):
        return UsageError(
            f"`{files[0]}` and `{files[1]}` are two runs: what drifted between them would look like a difference",
            hint="profile both bundles in one run, or label all that is said with --unpaired",
        )
    names = [_place(run, a.machine.name == b.machine.name) for run in (a, b)]
    return UsageError(
        f"`{files[0]}` was measured on {names[0]}, `{files[1]}` on {names[1]}: that is not the same machine",
        hint="measure both on one, or see them beside each other without verdicts with --unpaired",
    )


def _place(run: Run, alike: bool) -> str:
    """The machine's name, and what tells it from one that is ``alike``."""
    machine = run.machine
    if not machine.id:
        return f"{machine.name} (nobody knows which)"
    return f"{machine.name} ({machine.id[:12]})" if alike else machine.name


def _comparison(a: Run, b: Run, files: tuple[str, str], pairs: tuple[Pair, ...], inputs: int) -> Comparison:
    told, others = _circumstances(a), _circumstances(b)
    differs = {name: (told.get(name), others.get(name)) for name in (*told, *others)}
    marks = dict.fromkeys(mark for pair in pairs for mark in pair.marks)
    return Comparison(
        schema=SCHEMA,
        paired=UNPAIRED not in marks,
        same_machine=is_same_machine(a, b) or is_same_run(a, b),
        marks=tuple(marks),
        a=_side(a, files[0]),
        b=_side(b, files[1]),
        inputs=inputs,
        drift=None if is_same_run(a, b) else drift(a, b),
        floor=_floor(a, b),
        differs={name: both for name, both in differs.items() if both[0] != both[1]},
        pairs=pairs,
    )


def _circumstances(run: Run) -> dict[str, str]:
    protocol = run.protocol
    settings = {"scenario": protocol.scenario, "interleave": protocol.interleave}
    limit = {} if protocol.limit is None else {"limit": f"{protocol.limit} tokens"}
    return settings | limit | run.software


def _side(run: Run, file: str) -> Side:
    made = f"{run.mmedge.version} {run.mmedge.commit or ''}".strip()
    return Side(file, run.started, made, run.machine.name, run.machine.id, run.complete, doubts_of(run))


def _within(run: Run) -> Iterator[Pair]:
    """Every candidate with the baseline of the same run, as the run itself has it."""
    if not others_of(run):
        raise UsageError("this run has no two candidates to compare", hint="profile two bundles at once")
    everything = {at: at for at in range(len(run.inputs.items))}
    for c in others_of(run):
        base, own = Subject(run, 0, everything), Subject(run, c, everything)
        ratios = [row for row in run.results.ratios if row.c == c]
        timed = (
            Difference(row.metric, *_medians(run, c, row.metric), row.ratio, row.low, row.high, row.verdict)
            for row in ratios
        )
        yield _pair(base, own, "run", (*timed, *_values(base, own)), tuple(_judged_within(run, c)))


def _medians(run: Run, c: int, metric: str) -> tuple[float | None, float | None]:
    first, second = ((found.value if (found := run.absolute(each, metric)) else None) for each in (0, c))
    return first, second


def _judged_within(run: Run, c: int) -> Iterator[Quality]:
    own, base = ([score for score in run.quality if score.c == each] for each in (c, 0))
    for place, score in enumerate(own):
        beside = base[place] if place < len(base) else None
        first = None if beside is None else beside.mean if score.metric else beside.agreement
        value = score.mean if score.metric else score.agreement
        task = task_of(run, score)
        yield Quality(score.metric or "agreement", task, first, value, score.lost, score.low, score.high)


def _apart(pairs: Sequence[tuple[Subject, Subject, Match]]) -> Iterator[Pair]:
    """Candidates of two runs; each measure is judged among all of them."""
    series = [(series_of(one), series_of(two)) for one, two, _ in pairs]
    metrics = dict.fromkeys(metric for first, second in series for metric in first.values if metric in second.values)
    found = {metric: [ratio_apart(metric, second, first) for first, second in series] for metric in metrics}
    verdicts = {metric: _verdicts(each, pairs[0][0].run, pairs[0][1].run) for metric, each in found.items()}
    for at, (one, two, how) in enumerate(pairs):
        timed = (
            _difference(metric, *series[at], estimate, verdicts[metric][at])
            for metric in metrics
            if (estimate := found[metric][at])
        )
        yield _pair(one, two, how, (*timed, *_values(one, two)), tuple(judged_apart(one, two)))


def _verdicts(found: Sequence[Estimate | None], a: Run, b: Run) -> list[Verdict | None]:
    """None at all where the machines differ; drift is the bias of those that were measured apart."""
    if not is_same_machine(a, b):
        return [None] * len(found)
    margin = max(run.protocol.margin for run in (a, b))
    return [word for word, _ in judge(found, margin, _floor(a, b))]


def _floor(a: Run, b: Run) -> float:
    """By the rule of one run (`ratios.bias_of`): chance alone is in the intervals already."""
    drifted = drift(a, b) or 1.0
    shown = (bias_between(aa.low, aa.high) for run in (a, b) if (aa := run.results.aa) and aa.low > 0)
    return max(drifted - 1, 1 / drifted - 1, *shown)


def _by_direction(metric: str, ratio: float, verdict: Verdict | None) -> Verdict | None:
    """Of a rate, more is faster."""
    if metric != RATE or verdict not in ("faster", "slower"):
        return verdict
    return "faster" if ratio > 1 else "slower"


def _difference(metric: str, a: Series, b: Series, found: Estimate, verdict: Verdict | None) -> Difference:
    ratio, low, high = (math.exp(value) for value in (found.value, found.low, found.high))
    said = _by_direction(metric, ratio, verdict)
    return Difference(metric, a.middle(metric), b.middle(metric), ratio, low, high, said)


def _values(a: Subject, b: Subject) -> Iterator[Difference]:
    """Without intervals: each was measured once or a few times."""
    for metric in VALUES:
        stat = "median" if metric.endswith("_ms") else "value"
        rows = [each.run.absolute(each.c, metric, stat) for each in (a, b)]
        first, second = (row.value if row else None for row in rows)
        if first is not None and second is not None:
            yield Difference(metric, first, second, second / first if first else None)


def _pair(
    a: Subject, b: Subject, how: Match, differences: tuple[Difference, ...], quality: tuple[Quality, ...]
) -> Pair:
    texts, others = a.texts(), b.texts()
    names = {number: a.run.inputs.items[at].id for at, number in a.numbers.items()}
    both = sorted(texts.keys() & others.keys())
    marks = {
        UNPAIRED: how != "run",
        INCOMPLETE: not (a.run.complete and b.run.complete),
        INVALID: any(doubts_of(each.run) for each in (a, b)),
        UNVERIFIED: a.candidate.unverified or b.candidate.unverified,
    }
    return Pair(
        a=a.candidate.name,
        b=b.candidate.name,
        matched=how,
        marks=tuple(mark for mark, true in marks.items() if true),
        differences=differences,
        quality=quality,
        answered=len(both),
        changed=tuple(Changed(names[at], texts[at], others[at]) for at in both if texts[at] != others[at]),
    )
