"""Processes started, asked in turns, weighed and ended: the raw numbers of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import count

from msgspec.structs import replace

from mmedge.errors import QualityError
from mmedge.profiling import warmup
from mmedge.profiling.machine import page_cache
from mmedge.profiling.machine.cold import files_of
from mmedge.profiling.machine.health import Health
from mmedge.profiling.machine.memory import weigh
from mmedge.profiling.machine.power import Meter
from mmedge.profiling.messages import Answered, Ask, Load, Loaded
from mmedge.profiling.order import Order
from mmedge.profiling.run import (
    Answer,
    Candidate,
    Cold,
    Flag,
    Host,
    Input,
    Instructions,
    Layer,
    Limit,
    Memory,
    Minute,
    Peaks,
    Phase,
    Protocol,
    Roof,
    Sample,
    Sentinel,
    Warmup,
)
from mmedge.profiling.run import Load as LoadRow
from mmedge.profiling.sentinel import sentinel_ns
from mmedge.profiling.starts import Start
from mmedge.profiling.workers import COMMAND, Worker, running

ALONE = -1
"""In place of the number of a group of processes."""
NO_ROUND = -1
FEWEST_ROUNDS = 2
"""Of a group of processes, however little time there is."""
PATIENCE = 50
"""Times the slowest answer so far that one is waited for."""
SHORTEST_PATIENCE_S = 300.0
BLOCK = 8
"""Answers of a candidate before the next one is opened, where they do not fit into memory together."""


@dataclass
class Measurement:
    """What is measured, how, and what came out so far."""

    candidates: list[Candidate]
    items: Sequence[Input]
    protocol: Protocol
    command: Sequence[str] = COMMAND
    spans: bool = False
    """Whether samples keep when each stage began and ended."""
    meter: Meter = field(default_factory=Meter)
    health: Health = field(default_factory=Health)
    began_ns: int = field(default_factory=time.perf_counter_ns)
    samples: list[Sample] = field(default_factory=list)
    answers: dict[Answer, int] = field(default_factory=dict)
    sentinel: list[Sentinel] = field(default_factory=list)
    host: list[Host] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    cold: list[Cold] = field(default_factory=list)
    warmups: list[Warmup] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    load: list[LoadRow] = field(default_factory=list)
    minutes: list[Minute] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    roofline: list[Roof] = field(default_factory=list)
    peaks: Peaks | None = None
    instructions: list[Instructions] = field(default_factory=list)
    slowest_s: float = 0.0
    """Of all answers so far."""
    flags: list[Flag] = field(default_factory=list)
    """What could not be measured as it was asked for."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the engines."""

    def prepare(self, number: int, unverified: bool) -> None:
        """Start a candidate once: compile what has to be, and see that its golden samples are answered as they should.

        Raises:
            QualityError: they are not, and that is not to be ignored (``unverified``).
        """
        candidate = self.candidates[number]
        with self.process(number) as worker:
            start = self._open(worker, number)
            found = replace(candidate, engines=start.loaded.engines, engine_cache=start.loaded.compiled)
            failed = () if candidate.command else worker.verify().failed
        if failed and not unverified:
            raise QualityError(
                f"{candidate.name} does not answer its golden samples as it should: {failed[0]}",
                hint="`mmedge verify` says more; --unverified measures it all the same, and marks it everywhere",
            )
        self.candidates[number] = replace(found, unverified=bool(failed))

    def alone(self, number: int, items: Sequence[int]) -> None:
        """Start a candidate to see what it needs on its own, and let it answer ``items``.

        Memory is weighed here, of the first input and the largest: among others, a process is charged only a part of
        the pages that it shares with them.
        """
        with self.process(number) as worker:
            asks = [self.order_of(index) for index in dict.fromkeys((0, self.largest))]
            self.memory += weigh(worker, number, self._load(number), asks)
            for index in items:
                self.ask(worker, number, index, ALONE, NO_ROUND, "alone")

    def sitting(self, group: int, rounds: Iterator[tuple[int, Order]], more: Callable[[int], bool]) -> None:
        """Fresh processes of all candidates answer numbered rounds in turns, while there is time for ``more``, which
        is told how many there were."""
        with ExitStack() as stack:
            workers: dict[int, Worker] = {}
            for number in self._rotated(group):
                workers[number] = stack.enter_context(self.process(number))
                self.start(workers[number], number, group)
                workers[number].pause()
            self.health.begin([worker.pid for worker in workers.values()])
            for done in count():
                if not more(done):
                    return
                index, order = next(rounds)
                self._sense(index)
                for number in order:
                    with workers[number].awake() as worker:
                        self.ask(worker, number, index % len(self.items), group, index, "round")
                self._look(index, workers.values())

    def blocks(self, group: int, rounds: Iterator[tuple[int, Order]], more: Callable[[int], bool]) -> None:
        """The same for candidates that do not fit into memory together: each is opened for a block of answers, in an
        order and then the reverse of it (ABBA)."""
        for done in count(step=2 * BLOCK):
            if not more(done):
                return
            taken = [next(rounds) for _ in range(2 * BLOCK)]
            order = taken[0][1]
            self._block(group, [index for index, _ in taken[:BLOCK]], order)
            self._block(group, [index for index, _ in taken[BLOCK:]], order[::-1])

    def _block(self, group: int, indices: Sequence[int], order: Order) -> None:
        for number in order:
            with self.process(number) as worker:
                self.start(worker, number, group)
                self.health.begin([worker.pid])
                for index in indices:
                    if number == order[0]:
                        self._sense(index)
                    self.ask(worker, number, index % len(self.items), group, index, "round")
                    if number == order[-1]:
                        self._look(index, (worker,))

    def process(self, number: int) -> AbstractContextManager[Worker]:
        """A fresh process of a candidate, whose files are in memory."""
        candidate = self.candidates[number]
        page_cache.fill(files_of(candidate))
        return running(candidate.name, candidate.command or self.command)

    @property
    def largest(self) -> int:
        """Place of the input that is likely to need most."""
        sizes = [(each.features.get("megapixels", 0.0), each.features.get("bytes", 0.0)) for each in self.items]
        return sizes.index(max(sizes))

    def order_of(self, index: int) -> Ask:
        """What a worker is told to answer an input."""
        item = self.items[index]
        return Ask(item.task, item.file, item.text, self.protocol.limit, self.spans)

    def ask(self, worker: Worker, number: int, index: int, group: int, turn: int, phase: Phase) -> Answered:
        """Have an input answered, and keep it as a sample."""
        with self.meter.window() as window:
            answered = worker.ask(self.order_of(index), self._patience())
        self.slowest_s = max(self.slowest_s, answered.answer_ns / 1e9)
        self.keep(answered, number, index, group, turn, phase, window.energy_mj, window.seconds)
        return answered

    def keep(
        self,
        answered: Answered,
        number: int,
        index: int,
        group: int,
        turn: int,
        phase: Phase,
        energy_mj: dict[str, float] | None = None,
        energy_s: float = 0.0,
        due_ns: int | None = None,
    ) -> None:
        """As a sample."""
        said = Answer(number, index, answered.text, answered.tokens)
        sample = Sample(
            c=number,
            process=group,
            round=turn,
            input=index,
            phase=phase,
            start_ns=answered.start_ns - self.began_ns,
            answer_ns=answered.answer_ns,
            stages_ns=answered.stages_ns,
            token_ns=answered.token_ns,
            answer=self.answers.setdefault(said, len(self.answers)),
            energy_mj=energy_mj or {},
            energy_s=round(energy_s, 6) if energy_mj else 0.0,
            due_ns=due_ns,
            spans=answered.spans,
        )
        self.samples.append(sample)

    def _sense(self, index: int) -> None:
        self.sentinel.append(Sentinel(index, sentinel_ns()))

    def _look(self, index: int, workers: Iterable[Worker]) -> None:
        pids = [worker.pid for worker in workers]
        self.host.append(self.health.round(index, time.perf_counter_ns() - self.began_ns, pids))

    def _patience(self) -> float:
        """Seconds after which an engine is said to hang."""
        return max(SHORTEST_PATIENCE_S, PATIENCE * self.slowest_s)

    def _rotated(self, group: int) -> list[int]:
        """Everyone starts early in one group and late in another."""
        numbers = list(range(len(self.candidates)))
        first = group % len(numbers)
        return numbers[first:] + numbers[:first]

    def _load(self, number: int) -> Load:
        candidate = self.candidates[number]
        return Load(candidate.bundle, candidate.backend, candidate.threads)

    def _open(self, worker: Worker, number: int) -> Start:
        hello = worker.wait_until_started()
        loaded: Loaded = worker.load(self._load(number))
        self.versions |= loaded.versions
        return Start(worker.born_ns, hello, loaded)

    def start(self, worker: Worker, number: int, group: int) -> None:
        """Open and warm up; how long starting took, files being in memory, is kept too."""
        start = self._open(worker, number)
        times: list[float] = []
        while not warmup.enough(times, self.protocol.warmup_s, self.protocol.warmup_answers, self._longest_warmup()):
            answered = self.ask(worker, number, len(times) % len(self.items), group, NO_ROUND, "warmup")
            if not times:
                self.cold.append(start.ledger(number, "warm", answered))
            times.append(answered.answer_ns / 1e9)
        self.warmups.append(Warmup(number, group, len(times), round(sum(times), 3), warmup.steady(times)))

    def _longest_warmup(self) -> float:
        """Seconds: warming up is to take a third of the budget at most."""
        return self.protocol.budget_s / self.protocol.processes / len(self.candidates) / 3
