"""A float graph to a smaller one: static int8, int8 or int4 weights, or float16."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np
import onnx_ir
from onnx_ir.passes.common import TopologicalSortPass

from mmedge.core.bundle import Graph
from mmedge.core.plan import INT4_OPSET
from mmedge.core.ports import Port, Tensors
from mmedge.core.target import Target
from mmedge.errors import PlanError
from mmedge.export.half import large_values, to_float16, touches
from mmedge.export.spelling import load_plain
from mmedge.export.static_int8 import measure_ranges, quantize_static
from mmedge.export.tidy import tidy, write
from mmedge.export.weight_only import quantize_weights

WEIGHT_BITS = {"int8-weights": 8, "int4-weights": 4}


class Quantized(NamedTuple):
    """The smaller graph, and what its user should know."""

    graph: Graph
    warnings: tuple[str, ...]
    ranges: dict[str, float]
    """Largest absolute value of every float tensor on the feeds, where float16 asks for it."""


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
    edges: Collection[str] = (),
) -> Quantized:
    """Write the float32 graph ``source`` to ``output`` in ``precision``, weights beside it in ``<name>.onnx.data``.

    ``feeds`` are what the graph is really fed, needed for ``int8``; nodes whose names match a pattern of ``keep`` stay
    as they are. ``edges`` are inputs and outputs that become float16. Equal arguments give equal bytes.

    Raises:
        PlanError: a pattern matches nothing, or the precision cannot be had for this graph and target.
        InputError: the calibration data cannot be used.
    """
    with TemporaryDirectory(prefix=".quantize-", dir=output.parent) as work, quiet():
        program = load_plain(source)
        kept = kept_names([str(node.name) for node in program.graph], keep, graph.component)
        ranges = largest_values(program, feeds, Path(work)) if in_half(precision, target) and feeds else {}
        program, notes = _convert(program, kept, ranges, precision, feeds, method, target, Path(work))
        if in_half(precision, target):
            program = to_float16(program, kept, ranges, Path(work), typed=target.typed, edges=edges)
        TopologicalSortPass()(program)
        program.metadata_props.clear()
        write(tidy(program), output)
    return Quantized(_with_edges(graph, precision, edges), notes, ranges)


def in_half(precision: str, target: Target) -> bool:
    """Whether what is not quantized becomes float16."""
    return precision == "float16" or (target.typed and precision != "float32")


def largest_values(program: onnx_ir.Model, feeds: Sequence[Tensors], work: Path) -> dict[str, float]:
    """Largest absolute value of every float tensor of ``program`` on ``feeds``; of infinities the finite side."""
    path = work / "float.onnx"
    onnx_ir.save(program, path, external_data="float.onnx.data", size_threshold_bytes=1024)
    found = {name: np.abs(data.range_value) for name, data in measure_ranges(path, feeds, "minmax", work).items()}
    return {name: round(float(values[np.isfinite(values)].max(initial=0.0)), 6) for name, values in found.items()}


def _with_edges(graph: Graph, precision: str, edges: Collection[str]) -> Graph:
    def typed(ports: Sequence[Port]) -> tuple[Port, ...]:
        return tuple(msgspec.structs.replace(port, dtype="float16") if port.name in edges else port for port in ports)

    cache = graph.cache
    if cache and cache.past()[0].name in edges:
        cache = msgspec.structs.replace(cache, dtype="float16")
    return msgspec.structs.replace(
        graph, precision=precision, inputs=typed(graph.inputs), outputs=typed(graph.outputs), cache=cache
    )


def _convert(
    program: onnx_ir.Model,
    kept: set[str],
    ranges: dict[str, float],
    precision: str,
    feeds: Sequence[Tensors],
    method: str,
    target: Target,
    work: Path,
) -> tuple[onnx_ir.Model, tuple[str, ...]]:
    if precision == "int8":
        if target.typed:  # a cast between a DequantizeLinear and its product would keep it from becoming an int8 one
            large = large_values(ranges)
            kept = kept | {str(node.name) for node in program.graph if touches(node, large)}
        return quantize_static(program, kept, feeds, method, target.activations, work)
    if precision in WEIGHT_BITS:
        if target.weights == "blocks":
            _raise_opset(program, precision, target)
        return quantize_weights(program, kept, WEIGHT_BITS[precision], target.weights, products_only=target.typed)
    if precision == "float16":
        return program, ()
    raise PlanError(f"a graph cannot be quantized to `{precision}`")


def _raise_opset(program: onnx_ir.Model, precision: str, target: Target) -> None:
    """TensorRT reads blocks of int4 although its other operators are older. From 20 to 21 none that a traced graph has
    changed its meaning: they take more types."""
    opset = min(program.opset_imports[""], target.opset)
    if precision in target.experimental:
        program.opset_imports[""] = max(opset, INT4_OPSET)
    elif opset < INT4_OPSET:
        raise PlanError(f"`{precision}` needs ONNX operator set {INT4_OPSET}, here it is {opset}")


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
