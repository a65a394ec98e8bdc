"""How requests come: one when the one before is answered, or whenever they are due, whatever became of the others."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from mmedge.errors import UsageError

Kind: TypeAlias = Literal["single", "stream", "offline", "server"]

_FORMS = "single, offline, stream:RATE, server, server:RATE, server:slo=ttft<500ms, server:RATE,slo=answer<2s"
_RATE = re.compile(r"(?P<value>\d+(?:\.\d+)?|\.\d+)(?:/s)?")
_OBJECTIVE = re.compile(r"(?P<metric>ttft|answer)(?:_ms)?<(?P<value>\d+(?:\.\d+)?|\.\d+)(?P<unit>ms|s)?")


class Objective(Struct, frozen=True):
    """What 99 of 100 requests must keep, from the moment they are due."""

    metric: Literal["ttft_ms", "answer_ms"]
    bound_ms: float

    def __str__(self) -> str:
        return f"{self.metric}<{self.bound_ms:g}"


class Scenario(Struct, frozen=True):
    """``single``: one after the other. ``stream``: evenly spaced. ``offline``: all at once. ``server``: Poisson
    arrivals at a rate; without one, at the highest that keeps the objectives, or without these at several.
    """

    kind: Kind = "single"
    rate: float | None = None
    """Arrivals per second."""
    objectives: tuple[Objective, ...] = ()

    @property
    def slo(self) -> str:
        """As a run keeps it."""
        return "+".join(map(str, self.objectives))


def scenario_of(text: str) -> Scenario:
    """The scenario that ``--scenario`` names.

    Raises:
        UsageError: it cannot be read.
    """
    word, more, rest = text.partition(":")
    kind = next((kind for kind in get_args(Kind) if kind == word), None)
    if kind is None or (more and (not rest or kind in ("single", "offline"))):
        raise _unreadable(text)
    rate, objectives = None, None
    for part in rest.split(",") if rest else ():
        if part.startswith("slo=") and kind == "server" and objectives is None:
            objectives = part.removeprefix("slo=")
        elif (found := _RATE.fullmatch(part)) and rate is None and float(found["value"]):
            rate = float(found["value"])
        else:
            raise _unreadable(text)
    parts = () if objectives is None else objectives.split("+")
    return Scenario(kind, rate, tuple(_objective(part, text) for part in parts))


def _objective(part: str, text: str) -> Objective:
    found = _OBJECTIVE.fullmatch(part)
    if not found or not float(found["value"]):
        raise _unreadable(text)
    scale = 1e3 if found["unit"] == "s" else 1.0
    return Objective("ttft_ms" if found["metric"] == "ttft" else "answer_ms", float(found["value"]) * scale)


def _unreadable(text: str) -> UsageError:
    return UsageError(f"there is no scenario `{text}`", hint=f"such as: {_FORMS}; several objectives with +")
