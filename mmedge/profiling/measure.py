"""Processes started, asked in turns, weighed and ended: the raw numbers of a profile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from msgspec.structs import asdict, replace

from mmedge.profiling.messages import Ask, Load
from mmedge.profiling.order import Order
from mmedge.profiling.power import Meter
from mmedge.profiling.report import Candidate, Query, Run, Start, Weight
from mmedge.profiling.workers import COMMAND, Worker, running

ALONE = -1
"""In place of a sitting's number."""
WARMUP = -1
"""In place of a round's number."""


@dataclass
class Measurement:
    """What is measured, how, and what came out so far."""

    candidates: Sequence[Candidate]
    queries: Sequence[Query]
    warmup: int
    threads: int = 0
    limit: int | None = None
    command: Sequence[str] = COMMAND
    starts: list[Start] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    """Of the engines."""
    meter: Meter = field(default_factory=Meter)

    def prepare(self, number: int) -> None:
        """Start a candidate once to compile what has to be, and to see that it can be opened at all."""
        with self._process(number) as worker:
            self.starts.append(self._load(worker, number, "prepare"))

    def alone(self, number: int) -> None:
        """Start a candidate to see what it needs on its own.

        Memory is weighed here: among others, a process is charged only a part of the pages that it shares with them.
        """
        with self._process(number) as worker:
            self._start(worker, number, ALONE)
            self.weights.append(Weight(number, "alone", worker.weigh()))

    def sitting(self, sitting: int, rounds: Iterable[tuple[int, Order]], done: Callable[[int], None]) -> None:
        """Fresh processes of all candidates answer numbered rounds in turns; ``done`` hears the number of each."""
        with ExitStack() as stack:
            workers: dict[int, Worker] = {}
            for number in self._rotated(sitting):
                workers[number] = stack.enter_context(self._process(number))
                self._start(workers[number], number, sitting)
                workers[number].pause()
            for index, order in rounds:
                for number in order:
                    with workers[number].awake() as worker:
                        self._ask(worker, number, index % len(self.queries), sitting, index)
                done(index)
            for number, worker in workers.items():
                with worker.awake():
                    self.weights.append(Weight(number, "sitting", worker.weigh()))

    def _rotated(self, sitting: int) -> list[int]:
        """Everyone starts early in one sitting and late in another."""
        numbers = list(range(len(self.candidates)))
        first = sitting % len(numbers)
        return numbers[first:] + numbers[:first]

    def _process(self, number: int) -> AbstractContextManager[Worker]:
        return running(self.candidates[number].name, self.command)

    def _load(self, worker: Worker, number: int, phase: str) -> Start:
        worker.wait_until_started()
        started = worker.age
        candidate = self.candidates[number]
        loaded = worker.load(Load(candidate.bundle, candidate.backend, self.threads))
        self.versions |= loaded.versions
        return Start(number, phase, started, worker.age, loaded.seconds)

    def _start(self, worker: Worker, number: int, sitting: int) -> None:
        start = self._load(worker, number, "alone" if sitting == ALONE else "sitting")
        for index in range(self.warmup):
            self._ask(worker, number, index % len(self.queries), sitting, WARMUP)
            if index == 0:
                self.starts.append(replace(start, answered_s=worker.age))

    def _ask(self, worker: Worker, number: int, query: int, sitting: int, index: int) -> None:
        asked = self.queries[query]
        with self.meter.window() as window:
            answered = worker.ask(Ask(asked.task, asked.picture, asked.text, self.limit))
        self.runs.append(Run(number, query, sitting, index, **asdict(answered), energy_mj=window.energy_mj))
