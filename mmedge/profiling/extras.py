"""What is measured besides the rounds: under load, for minutes, from a cold start, with little memory, by layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mmedge.errors import UsageError
from mmedge.profiling.layers import instructions as counting
from mmedge.profiling.layers.layers import layers_of_candidates
from mmedge.profiling.layers.roofline import excesses, roofline
from mmedge.profiling.load.load import Trial, under_load
from mmedge.profiling.load.open_loop import Request
from mmedge.profiling.load.scenario import Scenario, scenario_of
from mmedge.profiling.load.soak import soak
from mmedge.profiling.machine.cold import cold_starts
from mmedge.profiling.machine.memory_limit import MOST_ASKS, LimitTrial
from mmedge.profiling.measure import ALONE, Measurement
from mmedge.profiling.messages import Answered
from mmedge.profiling.numbers.quantities import read_quantity
from mmedge.profiling.profile import Extra, Say
from mmedge.profiling.run import Host, Instructions
from mmedge.profiling.workers import Worker

AUTO = "auto"
COUNTED = 4
"""Inputs whose instructions are counted."""

Awake: TypeAlias = Callable[[], AbstractContextManager[Callable[[int], Answered]]]


def extras_of(
    *,
    is_cold: bool = False,
    memory: str | None = None,
    scenario: str = "single",
    budget_s: float = 120.0,
    soak_s: float | None = None,
    by_layer: bool = False,
    roof: bool = False,
    counted: bool = False,
) -> tuple[Extra, ...]:
    """What the options of `mmedge profile` ask for, what disturbs the machine least first.

    Raises:
        UsageError: the scenario or the memory limit cannot be read.
    """
    how, limit = scenario_of(scenario), _limit(memory)
    asked = (
        (how.kind != "single", load(how, budget_s)),
        (roof, roofline_of_all),
        (by_layer, layers_of_all),
        (is_cold, cold),
        (memory is not None, little_memory(limit)),
        (counted, instructions),
        (soak_s is not None, minutes(soak_s or 0.0)),
    )
    return tuple(extra for wanted, extra in asked if wanted)


def cold(measurement: Measurement, say: Say) -> None:
    """Starts with files in memory and not, compiled and not."""
    for c, candidate in enumerate(measurement.candidates[:-1]):
        found = cold_starts(c, candidate, measurement.order_of(0), command=measurement.command, say=say)
        measurement.cold += found.rows
        measurement.flags += found.flags


def little_memory(limit: int | None) -> Extra:
    """Answers under a real limit; without one the smallest that works is looked for."""

    def extra(measurement: Measurement, say: Say) -> None:
        few = (measurement.largest, *range(len(measurement.items)))
        asks = [measurement.order_of(index) for index in list(dict.fromkeys(few))[:MOST_ASKS]]
        for c, candidate in enumerate(measurement.candidates[:-1]):
            trial = LimitTrial(c, candidate, asks, measurement.command, say)
            measurement.limits += trial.smallest() if limit is None else (trial.under(limit, trial.free()),)

    return extra


def roofline_of_all(measurement: Measurement, say: Say) -> None:
    """What the machine can do at most, and how close each stage comes to it."""
    candidates, limit = measurement.candidates[:-1], measurement.protocol.limit
    measurement.peaks, roofs = roofline(candidates, measurement.items, measurement.samples, limit, say)
    measurement.roofline += roofs
    measurement.flags += excesses(roofs, [each.name for each in candidates])


def layers_of_all(measurement: Measurement, say: Say) -> None:
    """Time of each layer, in runs of their own, and how far its output is from the first candidate's."""
    layers, flags = layers_of_candidates(measurement.candidates[:-1], say)
    measurement.layers += layers
    measurement.flags += flags


def load(scenario: Scenario, budget_s: float) -> Extra:
    """Requests that come as the scenario says, for so many seconds in all."""

    def extra(measurement: Measurement, say: Say) -> None:
        say(f"under load: {scenario.kind}")

        def keep(c: int, place: int, request: Request) -> None:
            if request.answered:
                due_ns = request.due_ns - measurement.began_ns
                measurement.keep(request.answered, c, request.input, ALONE, place, "load", due_ns=due_ns)

        with everyone(measurement) as awake:
            service_s = [_usual_s(measurement, c) for c in range(len(awake))]
            trial = Trial(awake, service_s, len(measurement.items), budget_s, measurement.protocol.seed, keep)
            measurement.load += under_load(scenario, trial)

    return extra


def minutes(seconds: float) -> Extra:
    """Everyone in turns by the minute."""

    def extra(measurement: Measurement, say: Say) -> None:
        say(f"for {seconds / 60:g} minutes")
        own = len(measurement.candidates) - 1  # the twin would only heat the machine

        def look() -> Host:
            return measurement.health.round(ALONE, time.perf_counter_ns() - measurement.began_ns)

        def keep(c: int, minute: int, index: int, answered: Answered) -> None:
            measurement.keep(answered, c, index, ALONE, minute, "soak")

        with everyone(measurement) as awake:
            measurement.minutes += soak(awake[:own], len(measurement.items), seconds, look, keep=keep)

    return extra


def instructions(measurement: Measurement, say: Say) -> None:
    """Of decoding and pre-processing, of every bundle; its engine has no part in them."""
    inputs = [(item.file, item.text) for item in measurement.items[:COUNTED]]
    known: dict[str, counting.Instructions] = {}
    for c, candidate in enumerate(measurement.candidates[:-1]):
        if candidate.command:
            continue
        if candidate.bundle not in known:
            say(f"counting instructions of {candidate.name}")
            known[candidate.bundle] = counting.count(Path(candidate.bundle), inputs)
        found = known[candidate.bundle]
        measurement.instructions.append(Instructions(c, found.per_input, found.method, found.reason))


@contextmanager
def everyone(measurement: Measurement) -> Iterator[list[Awake]]:
    """What wakes each candidate, to be asked inside of a block. Where they do not fit into memory together, waking is
    starting a process."""
    with ExitStack() as stack:
        if measurement.protocol.interleave == "blocks":
            yield [_started(measurement, c) for c in range(len(measurement.candidates))]
            return
        awake = []
        for c in range(len(measurement.candidates)):
            worker = stack.enter_context(measurement.process(c))
            measurement.start(worker, c, ALONE)
            worker.pause()
            awake.append(_awake(measurement, worker))
        yield awake


def _awake(measurement: Measurement, worker: Worker) -> Awake:
    @contextmanager
    def block() -> Iterator[Callable[[int], Answered]]:
        with worker.awake():
            yield lambda index: worker.ask(measurement.order_of(index))

    return block


def _started(measurement: Measurement, c: int) -> Awake:
    @contextmanager
    def block() -> Iterator[Callable[[int], Answered]]:
        with measurement.process(c) as worker:
            measurement.start(worker, c, ALONE)
            yield lambda index: worker.ask(measurement.order_of(index))

    return block


def _limit(text: str | None) -> int | None:
    """Bytes; None where the smallest is to be found."""
    if text in (None, AUTO):
        return None
    try:
        return int(read_quantity(text or "", "size"))
    except ValueError as error:
        raise UsageError(f"--memory-limit is `{text}`, no size", hint=f"such as 900MiB, or {AUTO}") from error


def _usual_s(measurement: Measurement, c: int) -> float:
    """What an answer of a candidate takes."""
    times = [sample.answer_ns for sample in measurement.samples if sample.c == c and sample.phase == "round"]
    return float(np.median(times)) / 1e9
