"""What is said of two runs beside each other, as it is printed and as JSON."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from mmedge.profiling.run import Verdict

SCHEMA = "mmedge.compare/1"
UNDECIDED = 9
"""Exit code where it can be told neither way."""
UNPAIRED, INCOMPLETE, INVALID, UNVERIFIED = "UNPAIRED", "INCOMPLETE", "INVALID", "UNVERIFIED"

Match: TypeAlias = Literal["run", "name", "bundle", "only"]


class Side(Struct, frozen=True):
    """One of the runs."""

    file: str
    started: str
    mmedge: str
    machine: str
    machine_id: str
    complete: bool
    doubts: tuple[str, ...]
    """Why it is not valid."""


class Difference(Struct, frozen=True):
    """A measure of two candidates, and the ratio of B to A."""

    metric: str
    a: float | None
    b: float | None
    ratio: float | None
    low: float | None = None
    high: float | None = None
    verdict: Verdict | None = None
    """Null where none may be given: between two machines, or without an interval."""


class Quality(Struct, frozen=True):
    """A metric of answers to the same inputs."""

    metric: str
    task: str
    a: float | None
    b: float | None
    lost: float | None
    """Points of 100 that B is below A."""
    low: float | None
    high: float | None


class Changed(Struct, frozen=True):
    """An input that the two answer differently."""

    input: str
    a: str
    b: str


class Pair(Struct, frozen=True):
    """A candidate of each run."""

    a: str
    b: str
    matched: Match
    """By what: both in one run, the name, the bundle and its engine, or being the only ones."""
    marks: tuple[str, ...]
    differences: tuple[Difference, ...]
    quality: tuple[Quality, ...]
    answered: int
    """Inputs that both answered."""
    changed: tuple[Changed, ...]


class Comparison(Struct, frozen=True):
    """Everything that `mmedge compare` tells."""

    schema: str
    paired: bool
    same_machine: bool
    marks: tuple[str, ...]
    a: Side
    b: Side
    inputs: int
    """That both were asked."""
    drift: float | None
    """How long a fixed computation took in B by what it took in A; null in one run, or where it was not measured."""
    floor: float
    """Smallest difference that may be claimed, as a share: by drift, or by how a baseline differs from itself."""
    differs: dict[str, tuple[str | None, str | None]]
    """Versions, and settings that make answers other work; null where one has none."""
    pairs: tuple[Pair, ...]

    @property
    def exit_code(self) -> int:
        """9 where nothing that is compared may be said: all of it inconclusive, not valid, or of two machines."""
        valid = (pair for pair in self.pairs if INVALID not in pair.marks)
        said = {each.verdict for pair in valid for each in pair.differences}
        return 0 if said & {"faster", "slower", "same"} else UNDECIDED
