"""The form of ``mmedge.profile/1``: of what its files hold, that which is still made use of."""

from __future__ import annotations

from msgspec import Struct

from mmedge.core.board import Board


class Candidate(Struct, frozen=True):
    """A bundle on an engine."""

    name: str
    bundle: str
    digest: str
    backend: str | None
    precisions: dict[str, str]
    size: int


class Query(Struct, frozen=True):
    """What every candidate was asked."""

    name: str
    picture: str
    task: str
    text: str | None = None
    expected: str | None = None


class Bytes(Struct, frozen=True):
    """Memory of a process."""

    pss: int
    anonymous: int
    peak: int


class Weight(Struct, frozen=True):
    """Of which candidate, and when."""

    candidate: int
    phase: str
    memory: Bytes


class Answered(Struct, frozen=True):
    """One answer."""

    candidate: int
    query: int
    sitting: int
    round: int
    text: str
    answer_ms: float
    stages_ms: dict[str, float]
    token_ms: tuple[float, ...]
    energy_mj: dict[str, float] = {}


class Settings(Struct, frozen=True):
    """How it was measured."""

    rounds: int
    sittings: int
    threads: int
    limit: int | None
    seed: int


class State(Struct, frozen=True):
    """What the machine was doing."""

    governors: tuple[str, ...]
    on_battery: bool


class Power(Struct, frozen=True):
    """Which supply rails were measured."""

    rails: tuple[str, ...] = ()
    whole: str = ""
    missing: str = ""


class Machine(Struct, frozen=True):
    """Where it was measured."""

    name: str
    arch: str
    cores: int
    memory_mb: int
    kernel: str
    before: State
    board: Board | None = None
    power: Power | None = None


class Spread(Struct, frozen=True):
    """The middle of many values."""

    median: float
    count: int


class Interval(Struct, frozen=True):
    """A ratio to the first candidate."""

    ratio: float
    low: float
    high: float


class Metric(Struct, frozen=True):
    """A time of one candidate."""

    name: str
    ms: Spread
    ratio: Interval | None
    verdict: str | None


class Share(Struct, frozen=True):
    """How many of how many."""

    count: int
    of: int


class Result(Struct, frozen=True):
    """What became of one candidate."""

    metrics: tuple[Metric, ...]
    tokens_per_second: Spread | None
    start_s: Spread
    memory: Bytes | None
    right: Share | None
    equal: Share


class Doubt(Struct, frozen=True):
    """A reason to distrust the numbers."""

    what: str
    advice: str


class Profile(Struct, frozen=True):
    """The whole file."""

    mmedge: str
    begun: str
    complete: bool
    settings: Settings
    machine: Machine
    software: dict[str, str]
    candidates: tuple[Candidate, ...]
    queries: tuple[Query, ...]
    weights: tuple[Weight, ...] = ()
    runs: tuple[Answered, ...] = ()
    results: tuple[Result, ...] = ()
    doubts: tuple[Doubt, ...] = ()
