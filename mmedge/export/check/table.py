"""What each version of TensorRT reads, from the tables in ``targets/data/tensorrt_operators.json``."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from mmedge.core.find import PACKAGE
from mmedge.core.target import Target
from mmedge.errors import PlanError

DATA = PACKAGE / "targets" / "data" / "tensorrt_operators.json"

CHANGES = {("GroupNormalization", 21): (10, 9)}
"""Operators of a later ONNX that the tables do not tell apart from the older ones: (operator, version) to the TensorRT
whose parser reads it first, from the parser's list of changes."""

SCATTER_OPSET = 24
"""TensorScatter came with it."""


class Operator(Struct, frozen=True):
    """A row of the table."""

    supported: bool
    types: tuple[str, ...]
    restrictions: str


class Table(Struct, frozen=True):
    """The operators of one version of TensorRT."""

    version: str
    operators: dict[str, Operator]
    oldest_opset: int
    newest_opset: int
    plugins: tuple[str, ...]
    """Operators of its own, which have no domain."""

    @property
    def number(self) -> tuple[int, ...]:
        return number(self.version)

    def reads(self, operator: str) -> bool:
        return operator in self.operators and self.operators[operator].supported


def versions() -> tuple[str, ...]:
    """All versions that there is a table for, the oldest first."""
    return tuple(sorted((key for key in _data() if key != "_meta"), key=number))


def number(version: str) -> tuple[int, ...]:
    """For comparisons: ``10.3`` before ``10.13`` before ``11.x``."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


@cache
def table(version: str) -> Table:
    """The table of ``version``.

    Raises:
        PlanError: there is none.
    """
    if version not in versions():
        raise PlanError(f"there is no operator table `{version}`", hint=f"choose from: {', '.join(versions())}")
    about = _data()["_meta"][version]
    operators = msgspec.convert(_data()[version], dict[str, Operator])
    plugins = tuple(about.get("custom_ops", ()))
    return Table(version, operators, about["opset_min"], _newest_opset(version), plugins)


def can_scatter(target: Target) -> bool:
    """Whether every TensorRT that a target may have writes a cache in place, with the operator TensorScatter."""
    tables = [table(stack.operators) for stack in target.stacks]
    return bool(tables) and target.opset >= SCATTER_OPSET and all(each.reads("TensorScatter") for each in tables)


def _newest_opset(version: str) -> int:
    """Where the table does not say, what the next lower one reads."""
    upto = versions()[: versions().index(version) + 1]
    known = (_data()["_meta"][each]["opset_max"] for each in reversed(upto))
    return next(int(opset) for opset in known if opset is not None)


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(DATA.read_bytes())
    return data
