"""A profile as it is kept: everything that was measured, then what was made of it."""

from __future__ import annotations

from msgspec import Struct

from mmedge.core.board import Board
from mmedge.profiling.messages import Memory
from mmedge.profiling.meters import State
from mmedge.profiling.power import Power
from mmedge.profiling.statistics import Interval, Spread, Verdict

SCHEMA = "mmedge.profile/1"


class Candidate(Struct, frozen=True):
    """A bundle on an engine."""

    name: str
    bundle: str
    digest: str
    backend: str | None
    """None leaves the choice to the bundle's target, component by component."""
    precisions: dict[str, str]
    """By component."""
    size: int
    """Bytes of the bundle's files, without what is compiled for this machine."""


class Query(Struct, frozen=True):
    """What every candidate is asked."""

    name: str
    picture: str
    task: str
    text: str | None = None
    expected: str | None = None
    """The right answer, where it is known."""


class Start(Struct, frozen=True):
    """A fresh process of a candidate, from a warm page cache. All seconds count from asking for the process."""

    candidate: int
    phase: str
    """``prepare`` (the first, which may have to compile), ``alone`` (no other worker is there), ``sitting``."""
    started_s: float
    """Interpreter and imports."""
    loaded_s: float
    """The bundle is open."""
    load_s: float
    """Opening it took, in the worker's own words."""
    answered_s: float | None = None
    """The first answer was there; absent in ``prepare``."""


class Weight(Struct, frozen=True):
    """Memory of a candidate's process after it has answered: ``alone``, or at the end of a ``sitting``, where the
    workers share pages, so that only the peak means anything."""

    candidate: int
    phase: str
    memory: Memory


class Run(Struct, frozen=True):
    """One answer."""

    candidate: int
    query: int
    sitting: int
    """Group of processes, from 0; -1 is the process that ran alone."""
    round: int
    """From 0; -1 while warming up."""
    text: str
    answer_ms: float
    """From opening the picture file to the finished text, as the worker measures it."""
    stages_ms: dict[str, float]
    token_ms: tuple[float, ...]
    """When each token was there, since the request."""
    energy_mj: dict[str, float] = {}
    """What went through each supply rail meanwhile, whoever used it; empty where that cannot be measured."""

    @property
    def first_token_ms(self) -> float | None:
        return self.token_ms[0] if self.token_ms else None

    @property
    def tokens_per_second(self) -> float | None:
        """After the first token; one token has no rate."""
        count, took = len(self.token_ms) - 1, self.token_ms[-1] - self.token_ms[0] if self.token_ms else 0.0
        return count / took * 1e3 if count > 0 and took > 0 else None


class Settings(Struct, frozen=True):
    """How it was measured."""

    rounds: int
    warmup: int
    sittings: int
    threads: int
    limit: int | None
    seed: int


class Machine(Struct, frozen=True):
    """Where it was measured."""

    name: str
    arch: str
    cores: int
    memory_mb: int
    processor: str
    kernel: str
    before: State
    after: State | None = None
    board: Board | None = None
    """Before anything ran: power mode, clocks and temperatures too."""
    power: Power | None = None
    """Which supply rails are measured; absent in older profiles."""
    temperatures_after: dict[str, float] = {}
    """Degrees Celsius by thermal zone, right after the last answer."""


class Metric(Struct, frozen=True):
    """A time of one candidate, milliseconds, and its ratio to the first one's."""

    name: str
    ms: Spread
    ratio: Interval | None
    """Absent for the first candidate, and with too few rounds."""
    verdict: Verdict | None


class Share(Struct, frozen=True):
    """How many of how many."""

    count: int
    of: int

    @property
    def value(self) -> float:
        return self.count / self.of


class Result(Struct, frozen=True):
    """What became of one candidate."""

    metrics: tuple[Metric, ...]
    """``answer``, ``first_token``, then the stages in the order they run."""
    tokens_per_second: Spread | None
    start_s: Spread
    """From asking for the process to its first answer."""
    load_s: Spread
    memory: Memory | None
    """Of the process that ran alone, the peak being the highest of all its processes; the twin never runs alone."""
    right: Share | None
    """Pictures whose answer is exactly the expected one, but for case and white space."""
    equal: Share
    """Pictures with the same answer as the first candidate's."""
    energy_mj: dict[str, Spread] = {}
    """Of an answer, by supply rail."""

    def metric(self, name: str) -> Metric | None:
        return next((metric for metric in self.metrics if metric.name == name), None)


class Doubt(Struct, frozen=True):
    """A reason to distrust the numbers, and what to do about it."""

    what: str
    advice: str


class Profile(Struct, frozen=True):
    """A whole profile; ``results`` come when it is ``complete``."""

    schema: str
    mmedge: str
    begun: str
    complete: bool
    settings: Settings
    machine: Machine
    software: dict[str, str]
    candidates: tuple[Candidate, ...]
    """The last one is the first again, under another name: what it seems to differ by, this machine cannot resolve."""
    queries: tuple[Query, ...]
    order: tuple[tuple[int, ...], ...]
    """Candidates of every round, in the order they answered."""
    starts: tuple[Start, ...] = ()
    weights: tuple[Weight, ...] = ()
    runs: tuple[Run, ...] = ()
    results: tuple[Result, ...] = ()
    """Per candidate."""
    doubts: tuple[Doubt, ...] = ()

    @property
    def rounds(self) -> tuple[Run, ...]:
        """The answers that count."""
        return tuple(run for run in self.runs if run.round >= 0)
