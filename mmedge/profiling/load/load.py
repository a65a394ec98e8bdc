"""Candidates under load: at which rates they keep an objective, and what their answers take meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from msgspec.structs import replace

from mmedge.profiling.load.open_loop import PATIENCE, Ask, Request, evenly, poisson, served
from mmedge.profiling.load.scenario import Objective, Scenario
from mmedge.profiling.numbers.percentiles import PERCENTILES, bound_of, samples_needed, slower_allowed
from mmedge.profiling.run import Load

Awake: TypeAlias = Callable[[], AbstractContextManager[Ask]]
"""Lets a candidate's process run inside a block, and gives what asks it."""

Keep: TypeAlias = Callable[[int, int, Request], None]
"""Told of every request: the candidate, the place of its `run.Load`, and what became of it."""

WITHIN = 0.99
"""Share of the requests that must keep an objective."""
ENOUGH = samples_needed(WITHIN, 1)
"""Requests after which a rate is asked no longer, as in MLPerf's LoadGen: 662, one of which may be slow."""
STEPS = (3, 6)
"""Fewest and most rates that a search tries: after six it is within 2 % of what a candidate can answer at all. Few that
are sure are better than more of which nothing is known, so that it depends on the time."""
SWEEP = (0.2, 0.4, 0.6, 0.8, 0.9)
"""Where no rate and no objective is given: shares of what a candidate can answer at all."""
USUAL = 0.8
"""Of a stream without a rate."""


@dataclass(frozen=True)
class Trial:
    """Who is asked, how long, by which clock."""

    awake: Sequence[Awake]
    """By candidate."""
    service_s: Sequence[float]
    """What an answer of each takes, roughly: from its warm-up."""
    inputs: int
    budget_s: float
    """For all candidates and rates; requests that are waiting when it ends are still answered."""
    seed: int
    keep: Keep = lambda candidate, load, request: None
    clock: Callable[[], int] = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep


def under_load(scenario: Scenario, trial: Trial) -> list[Load]:
    """What every candidate does at every rate of the scenario; all of them have the same arrivals at the same rate."""
    steps = _steps_of(scenario, trial)
    loads: list[Load] = []
    for step in range(steps):
        rates = [_rate(scenario, step, 1 / trial.service_s[c], _of(loads, c)) for c in range(len(trial.awake))]
        loads += _step(scenario, trial, rates, trial.budget_s / steps / len(rates), len(loads))
    return loads


def highest_rate(loads: Iterable[Load], candidate: int) -> float | None:
    """At which the objective is known to be kept; null if at none."""
    return max((load.rate for load in loads if load.c == candidate and load.held), default=None)


def kept(count: int, slow: int) -> bool | None:
    """Whether `WITHIN` of all keep the objective, where ``slow`` of ``count`` did not; null if it cannot be told."""
    if not count:
        return None
    if slow <= _fewer(count, WITHIN):
        return True
    # As sure of the contrary: it would be a rare accident, were 99 % in time.
    return False if count - slow <= _fewer(count, 1 - WITHIN) else None


def kept_in(blocks: Iterable[tuple[int, int]]) -> bool | None:
    """The same of how many came and were too slow in several blocks of time; null too where one of them contradicts:
    requests that wait in one queue are not independent, and a single stall makes many of them slow."""
    counts = [(count, slow) for count, slow in blocks if count]
    found = kept(sum(count for count, _ in counts), sum(slow for _, slow in counts))
    return found if all((slow <= (1 - WITHIN) * count) is found for count, slow in counts) else None


def _fewer(count: int, share: float) -> int:
    """How many of ``count`` may be on the other side of a share; -1 where there are too few to tell."""
    allowed = slower_allowed(count, share)
    return -1 if allowed is None else allowed


def _steps_of(scenario: Scenario, trial: Trial) -> int:
    if scenario.rate or scenario.kind != "server":
        return 1
    if not scenario.objectives:
        return len(SWEEP)
    step_s = sum(ENOUGH * 2 * service_s for service_s in trial.service_s)  # at half of what is possible
    fewest, most = STEPS
    return min(max(int(trial.budget_s / step_s), fewest), most)


def _rate(scenario: Scenario, step: int, most: float, before: Sequence[Load]) -> float:
    """The next rate to offer to a candidate that can answer ``most`` a second."""
    if scenario.kind == "offline":
        return 0.0
    if scenario.rate:
        return scenario.rate
    if scenario.kind == "stream":
        return most * USUAL
    return _middle(before, most) if scenario.objectives else most * SWEEP[step]


def _middle(before: Sequence[Load], most: float) -> float:
    """Half-way between the highest rate that was good enough and the lowest above it that was not."""
    good = max((load.rate for load in before if _good(load)), default=0.0)
    bad = min((load.rate for load in before if load.rate > good and not _good(load)), default=most)
    return (good + bad) / 2


def _good(load: Load) -> bool:
    """For the search: where too few requests fit the time to be sure, it goes by what they did."""
    if _fewer(load.offered, WITHIN) >= 0:
        return load.held is True
    return load.goodput is not None and load.goodput * load.seconds >= WITHIN * load.offered


def _of(loads: Iterable[Load], candidate: int) -> list[Load]:
    return [load for load in loads if load.c == candidate]


def _step(scenario: Scenario, trial: Trial, rates: Sequence[float], seconds: float, place: int) -> list[Load]:
    """Every candidate in two blocks, the second ones in reverse order: so a drift of the machine meets all alike."""
    order = range(len(rates))
    found: dict[int, list[tuple[list[Request], float]]] = {c: [] for c in order}
    for block, candidates in enumerate((order, reversed(order))):
        for c in candidates:
            due, patience = _due(scenario, rates[c], seconds / 2, trial.service_s[c], trial.seed + 2 * place + block)
            with trial.awake[c]() as ask:
                begin = trial.clock()
                requests = served(
                    ask, trial.inputs, due, patience, first=block * len(due), clock=trial.clock, sleep=trial.sleep
                )
                found[c].append((requests, (trial.clock() - begin) / 1e9))
            for request in requests:
                trial.keep(c, place + c, request)
    return [
        _judged(scenario, Load(c, round(rates[c], 6), 0, scenario.slo, seed=trial.seed + 2 * place), found[c])
        for c in order
    ]


def _due(scenario: Scenario, rate: float, seconds: float, service_s: float, seed: int) -> tuple[Sequence[int], float]:
    """When requests of one block are due, and how long it may take."""
    if scenario.kind == "offline":
        return [0] * max(1, int(seconds / service_s)), math.inf
    seconds = min(seconds, ENOUGH / 2 / rate)
    due = evenly(rate, seconds) if scenario.kind == "stream" else poisson(rate, seconds, seed)
    return due, seconds * PATIENCE


def _judged(scenario: Scenario, load: Load, blocks: Sequence[tuple[list[Request], float]]) -> Load:
    requests = [request for block, _ in blocks for request in block]
    seconds = sum(took for _, took in blocks)
    answered = [request for request in requests if request.answered]
    slow = [sum(not _keeps_all(request, scenario.objectives) for request in block) for block, _ in blocks]
    good = len(requests) - sum(slow)
    services = [request.answered.answer_ns for request in answered if request.answered]
    return replace(
        load,
        offered=len(requests),
        answered=len(answered),
        seconds=seconds,
        throughput=len(answered) / seconds if seconds else None,
        goodput=good / seconds if scenario.objectives and seconds else None,
        held=kept_in((len(block), late) for (block, _), late in zip(blocks, slow, strict=True))
        if scenario.objectives
        else None,
        response_ms=_summary([request.response_ns for request in requests]),
        service_ms=_summary(services),
    )


def _keeps_all(request: Request, objectives: Sequence[Objective]) -> bool:
    return all(_keeps(request, objective) for objective in objectives)


def _keeps(request: Request, objective: Objective) -> bool:
    took = request.first_token_ns if objective.metric == "ttft_ms" else request.response_ns
    return took < objective.bound_ms * 1e6


def _summary(nanoseconds: Sequence[float]) -> dict[str, float]:
    """In milliseconds; what is infinite, because requests were never answered, is absent."""
    if not nanoseconds:
        return {}
    values = np.array(nanoseconds, float) / 1e6
    found = {"median": float(np.quantile(values, 0.5, method="lower")), "max": float(values.max())}
    for name in ("p90", "p95", "p99"):
        bound = bound_of(values, PERCENTILES[name])
        if bound.enough and bound.high is not None:
            found[name] = bound.high
    return {name: value for name, value in found.items() if math.isfinite(value)}
