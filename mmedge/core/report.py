"""What a run did and measured: to and from JSON."""

from __future__ import annotations

from msgspec import Struct


class Stage(Struct, frozen=True):
    """One stage of an export: wall time in seconds and the process's peak memory during it, MiB."""

    name: str
    seconds: float
    peak_mb: float
    note: str = ""


class Agreement(Struct, frozen=True, forbid_unknown_fields=True):
    """A graph against torch on the same inputs: the worst sample and output decide."""

    component: str
    precision: str
    max_abs: float
    cosine: float
    worst: str
    """Sample and output of the lowest cosine."""
    samples: int
    farthest: str = ""
    """Sample and output of the largest difference."""


class Answers(Struct, frozen=True, forbid_unknown_fields=True):
    """Answers of the bundle against torch, end to end."""

    equal: int
    total: int
    worst: str = ""

    @property
    def share(self) -> float:
        return self.equal / self.total if self.total else 1.0


class Report(Struct, frozen=True):
    """An export from start to end."""

    bundle: str
    stages: tuple[Stage, ...]
    agreement: tuple[Agreement, ...]
    answers: Answers
    warnings: tuple[str, ...] = ()
