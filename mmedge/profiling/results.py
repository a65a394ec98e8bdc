"""From raw answers to medians, ratios and shares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from msgspec.structs import replace

from mmedge.profiling.messages import Memory
from mmedge.profiling.report import Metric, Profile, Result, Run, Share
from mmedge.profiling.statistics import Resampling, Spread, spread, verdict

STAGES = ("read", "decode", "preprocess", "encode", "project", "prefill", "decode_loop", "detokenise")
"""In the order they run; a stage that is not among them comes after these."""

OTHER = "other"
"""What a whole answer takes beyond its stages."""


def results_of(profile: Profile) -> tuple[Result, ...]:
    """One result per candidate, each compared with the first; the last one, its twin, says how well that works."""
    runs = profile.rounds
    count = len(profile.candidates)
    by_candidate = [[run for run in runs if run.candidate == number] for number in range(count)]
    resampling = Resampling(np.array([run.sitting for run in by_candidate[0]]))
    metrics: list[list[Metric]] = [[] for _ in range(count)]
    for name, value in _measures(runs).items():
        for number, metric in _compare(name, [_times(own, value) for own in by_candidate], resampling):
            metrics[number].append(metric)
    return tuple(_result(profile, number, tuple(metrics[number])) for number in range(count))


def stages_of(runs: Iterable[Run]) -> tuple[str, ...]:
    """Every stage that any answer went through, in order."""
    seen = dict.fromkeys(stage for run in runs for stage in run.stages_ms)
    return (*(stage for stage in STAGES if stage in seen), *(stage for stage in seen if stage not in STAGES))


def _measures(runs: Sequence[Run]) -> dict[str, Callable[[Run], float | None]]:
    def stage(name: str) -> Callable[[Run], float | None]:
        return lambda run: run.stages_ms.get(name)

    return {
        "answer": lambda run: run.answer_ms,
        "first_token": lambda run: run.first_token_ms,
        **{name: stage(name) for name in stages_of(runs)},
        OTHER: lambda run: max(0.0, run.answer_ms - sum(run.stages_ms.values())),
    }


def _times(runs: Iterable[Run], value: Callable[[Run], float | None]) -> np.ndarray:
    """One per round; NaN where an answer had no such stage."""
    return np.array([np.nan if (found := value(run)) is None else found for run in runs])


def _compare(name: str, times: Sequence[np.ndarray], resampling: Resampling) -> Iterable[tuple[int, Metric]]:
    """The measure of every candidate, judged by what the first and its twin, the last, differ in it."""
    known = [each[~np.isnan(each)] for each in times]
    ratios = [None, *(resampling.interval(each, times[0]) for each in times[1:])]
    noise = ratios[-1].reach if ratios[-1] else 1.0
    for number, (values, ratio) in enumerate(zip(known, ratios, strict=True)):
        # The twin's own noise would excuse any difference to itself.
        resolution = 1.0 if number == len(times) - 1 else noise
        if len(values):
            yield number, Metric(name, spread(values), ratio, verdict(ratio, resolution) if number else None)


def _result(profile: Profile, number: int, metrics: tuple[Metric, ...]) -> Result:
    own = [run for run in profile.rounds if run.candidate == number]
    starts = [start for start in profile.starts if start.candidate == number and start.phase != "prepare"]
    rates = [rate for run in own if (rate := run.tokens_per_second)]
    return Result(
        metrics=metrics,
        tokens_per_second=spread(rates) if rates else None,
        start_s=spread([start.answered_s for start in starts if start.answered_s]),
        load_s=spread([start.load_s for start in starts]),
        memory=_memory(profile, number),
        right=_right(profile, number),
        equal=_equal(profile, number),
        energy_mj=_energy(own),
    )


def _energy(runs: Sequence[Run]) -> dict[str, Spread]:
    rails = dict.fromkeys(rail for run in runs for rail in run.energy_mj)
    return {rail: spread([run.energy_mj[rail] for run in runs if rail in run.energy_mj]) for rail in rails}


def _memory(profile: Profile, number: int) -> Memory | None:
    weights = [weight for weight in profile.weights if weight.candidate == number]
    alone = next((weight.memory for weight in weights if weight.phase == "alone"), None)
    return replace(alone, peak=max(weight.memory.peak for weight in weights)) if alone else None


def _right(profile: Profile, number: int) -> Share | None:
    answers = _answers(profile.rounds, number)
    known = {query: each.expected for query, each in enumerate(profile.queries) if each.expected and query in answers}
    right = sum(_plain(answers[query]) == _plain(expected) for query, expected in known.items())
    return Share(right, len(known)) if known else None


def _equal(profile: Profile, number: int) -> Share:
    first, answers = _answers(profile.rounds, 0), _answers(profile.rounds, number)
    return Share(sum(answers[query] == text for query, text in first.items()), len(first))


def _answers(runs: Iterable[Run], candidate: int) -> dict[int, str]:
    """The candidate's first answer to each query."""
    found: dict[int, str] = {}
    for run in runs:
        if run.candidate == candidate:
            found.setdefault(run.query, run.text)
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
