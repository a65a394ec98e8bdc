"""A float graph to a smaller one: static int8, int8 or int4 weights, or float16."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import onnx_ir
from onnx_ir.passes.common import TopologicalSortPass

from mmedge.core.bundle import Graph
from mmedge.core.ports import Tensors
from mmedge.core.target import Target
from mmedge.errors import PlanError
from mmedge.export.half import to_float16
from mmedge.export.spelling import load_plain
from mmedge.export.static_int8 import quantize_static
from mmedge.export.tidy import tidy, write
from mmedge.export.weight_only import quantize_weights

WEIGHT_BITS = {"int8-weights": 8, "int4-weights": 4}

BLOCKED_OPSET = 21
"""Blocked DequantizeLinear and the type INT4 came with this operator set."""


class Quantized(NamedTuple):
    """The smaller graph, and what its user should know."""

    graph: Graph
    warnings: tuple[str, ...]


def quantize(
    graph: Graph,
    source: Path,
    output: Path,
    *,
    precision: str,
    keep: Sequence[str] = (),
    feeds: Sequence[Tensors] = (),
    method: str = "minmax",
    target: Target,
) -> Quantized:
    """Write the float32 graph ``source`` to ``output`` in ``precision``, weights beside it in ``<name>.onnx.data``.

    ``feeds`` are what the graph is really fed, needed for ``int8``; nodes whose names match a pattern of ``keep`` stay
    as they are. Equal arguments give equal bytes.

    Raises:
        PlanError: a pattern matches nothing, or the precision cannot be had for this graph and target.
        InputError: the calibration data cannot be used.
    """
    with TemporaryDirectory(prefix=".quantize-", dir=output.parent) as work, quiet():
        program = load_plain(source)
        kept = kept_names([str(node.name) for node in program.graph], keep, graph.component)
        program, notes = _convert(program, kept, precision, feeds, method, target, Path(work))
        TopologicalSortPass()(program)
        program.metadata_props.clear()
        write(tidy(program), output)
    return Quantized(msgspec.structs.replace(graph, precision=precision), notes)


def _convert(
    program: onnx_ir.Model,
    kept: set[str],
    precision: str,
    feeds: Sequence[Tensors],
    method: str,
    target: Target,
    work: Path,
) -> tuple[onnx_ir.Model, tuple[str, ...]]:
    if precision == "int8":
        return quantize_static(program, kept, feeds, method, target.activations, work)
    if precision in WEIGHT_BITS:
        if target.weights == "blocks":
            _refuse_old_opset(program, precision, target)
        return quantize_weights(program, kept, WEIGHT_BITS[precision], target.weights)
    if precision == "float16":
        return to_float16(program, kept, feeds, work), ()
    raise PlanError(f"a graph cannot be quantized to `{precision}`")


def _refuse_old_opset(program: onnx_ir.Model, precision: str, target: Target) -> None:
    opset = min(program.opset_imports[""], target.opset)
    if opset < BLOCKED_OPSET:
        raise PlanError(f"`{precision}` needs ONNX operator set {BLOCKED_OPSET}, here it is {opset}")


def kept_names(names: Sequence[str], patterns: Sequence[str], component: str) -> set[str]:
    """The names that match any of the patterns (``fnmatch``).

    Raises:
        PlanError: a pattern matches none of them.
    """
    kept: set[str] = set()
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            close = get_close_matches(pattern, names, n=3, cutoff=0.4)
            raise PlanError(
                f"`keep` pattern `{pattern}` matches no node of `{component}`",
                hint=f"nodes with names like it: {', '.join(close)}"
                if close
                else f"its nodes: {', '.join(names[:5])} ...",
            )
        kept |= matches
    return kept


@contextmanager
def quiet() -> Iterator[None]:
    """Quantizers print, and log through the root logger, which they configure: none of it is for our users."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = [logging.NullHandler()]
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
