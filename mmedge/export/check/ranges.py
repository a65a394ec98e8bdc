"""Whether float16 holds the values of a graph: those recorded while it answered samples, and its constants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir
from onnx_ir import DataType

from mmedge.errors import BundleError
from mmedge.export import half
from mmedge.export.check.findings import Finding, Headroom
from mmedge.export.check.follow import MOVES
from mmedge.export.check.opened import Opened, constant, is_fixed

FOLDER = "ranges"
"""Of a bundle: ``<component>.json`` has the largest absolute value of each tensor on the calibration data."""

SAFE = half.LARGEST
LARGEST = float(np.finfo(np.float16).max)
SMALLEST = float(np.finfo(np.float16).tiny)
"""Below it, float16 loses digits."""

MASK = -60_000.0
"""Two masks of such values add up to minus infinity, and a row of these to a NaN."""

STEERED = "attention_bias"
"""The input that is added to a decoder's scores: a number that stands for minus infinity (`CacheShape.steering`)."""

NORMS = (
    *("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization"),
    *("Softmax", "LogSoftmax"),
)
"""They add up squares or exponentials: in float32 inside of their kernels, so that what they read decides."""

SUMS = ("Exp", "Pow", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp")
"""Norms and softmax spelled out, whose squares, exponentials and sums no kernel guards."""

ANGLES = ("Sin", "Cos")

SAME = ("Cast", "QuantizeLinear", "DequantizeLinear", *MOVES)
"""Their outputs are no larger than what they read."""

EPSILONS = 4
"""Constants of up to this many elements are numbers that someone chose; among the weights tiny ones are usual."""


def check_ranges(opened: Opened, ranges: Mapping[str, float] | None) -> Iterator[Finding]:
    """What float16 overflows on, or is too coarse for."""
    if not any(_is_half(value) for node in opened.nodes for value in (*node.inputs, *node.outputs)):
        return
    yield from _check_recorded(opened, ranges)
    for node in opened.nodes:
        yield from _check_operator(opened, node, ranges or {})
        yield from _check_cast(opened, node)
    for value in _half_constants(opened):
        yield from _check_constant(opened, value)


def measure_headroom(opened: Opened, ranges: Mapping[str, float] | None) -> Headroom | None:
    """None for a graph without float16 values, or without records of them. Scores with a mask on them are left out:
    theirs would be the mask's."""
    computed = (value for value in _computed(opened) if not _is_masked(value))
    known = {value: _recorded(value, ranges) for value in computed} if ranges else {}
    seen = {value: largest for value, largest in known.items() if largest is not None}
    if not seen:
        return None
    value = max(seen, key=lambda each: seen[each])
    node = value.producer()
    where = node.name or node.op_type if node is not None else ""
    return Headroom(opened.component, len(known), len(seen), seen[value], str(value.name), where)


def read_ranges(folder: Path, component: str) -> dict[str, float] | None:
    """What was recorded of a component; None if nothing was.

    Raises:
        BundleError: the file is damaged.
    """
    path = folder / FOLDER / f"{component}.json"
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, float])
    except msgspec.DecodeError as error:
        raise BundleError(f"`{path}` is not a list of ranges: {error}") from error


def _check_recorded(opened: Opened, ranges: Mapping[str, float] | None) -> Iterator[Finding]:
    if ranges is None:
        message = "it computes in float16, and no ranges of its values were recorded"
        yield opened.finding("ranges/unknown", "note", message, "export with calibration data")
        return
    unseen = 0
    for value in _computed(opened):
        largest = _recorded(value, ranges)
        unseen += largest is None
        node, hint = value.producer(), "keep it in float32: add its name to `keep`"
        if largest is not None and largest > LARGEST:
            message = f"`{value.name}` reaches {largest:,.0f}, float16 ends at {LARGEST:,.0f}"
            yield opened.finding("ranges/overflow", "error", message, hint, node)
        elif largest is not None and largest > SAFE:
            message = f"`{value.name}` reaches {largest:,.0f} on the calibration data, {SAFE:,.0f} is safe in float16"
            yield opened.finding("ranges/large", "error", message, hint, node)
    if unseen:
        message = f"{unseen} of {sum(1 for _ in _computed(opened))} float16 values were not recorded"
        yield opened.finding("ranges/unknown", "note", message, "export again with calibration data")


def _computed(opened: Opened) -> Iterator[onnx_ir.Value]:
    """What is made of inputs; weights that are stored smaller are no larger than they were."""
    return (value for node in opened.nodes for value in node.outputs if _is_half(value) and not is_fixed(value))


def _is_masked(value: onnx_ir.Value) -> bool:
    """Whether it is the mask, or what the mask was added to."""
    start = _unmoved(value)
    node = start.producer()
    added = node.inputs if node is not None and node.op_type == "Add" else ()
    return any(each is not None and _unmoved(each).name == STEERED for each in (start, *added))


def _unmoved(value: onnx_ir.Value) -> onnx_ir.Value:
    """What was cast or moved to become ``value``."""
    while (node := value.producer()) is not None and node.op_type in SAME and node.inputs[0] is not None:
        value = node.inputs[0]
    return value


def _recorded(value: onnx_ir.Value, ranges: Mapping[str, float]) -> float | None:
    """Of the value, or of one that has the same elements: before or after a cast, a quantization or a move."""
    if value.name in ranges:
        return ranges[value.name]
    for user in value.consumers():
        if user.op_type == "Cast" and user.outputs[0].name in ranges:
            return ranges[user.outputs[0].name]
    before = value.producer()
    if before is None or before.op_type not in SAME or before.inputs[0] is None:
        return None
    return _recorded(before.inputs[0], ranges)


def _check_operator(opened: Opened, node: onnx_ir.Node, ranges: Mapping[str, float]) -> Iterator[Finding]:
    if not node.inputs or not _is_half(value := node.inputs[0]) or value is None:
        return
    if node.op_type in SUMS:
        message = f"`{node.op_type}` is computed in float16: squares, exponentials and sums soon leave it"
        yield opened.finding("ranges/sums", "warning", message, "keep it in float32, with casts around it", node)
    if node.op_type in NORMS and _recorded(value, ranges) is None:
        message = f"`{node.op_type}` is computed in float16 of values that were not recorded"
        yield opened.finding("ranges/sums", "warning", message, "keep it in float32, or export with samples", node)
    if node.op_type in ANGLES:
        message = f"`{node.op_type}` of float16 angles: from 2,048 on they are whole numbers"
        hint = "compute angles in float32, or look them up in a table"
        yield opened.finding("ranges/angles", "error", message, hint, node)


def _check_cast(opened: Opened, node: onnx_ir.Node) -> Iterator[Finding]:
    """A float32 constant that does not survive the cast."""
    tensor = constant(node.inputs[0]) if node.op_type == "Cast" and node.inputs else None
    if tensor is None or not _is_half(node.outputs[0]) or tensor.dtype not in (DataType.FLOAT, DataType.DOUBLE):
        return
    values = tensor.numpy()
    if np.isfinite(values).all() and np.abs(values).max(initial=0) > LARGEST:
        far = float(values.flat[np.abs(values).argmax()])
        message = f"the constant {far:g} is cast to float16, which ends at {LARGEST:,.0f}"
        yield opened.finding("ranges/constant", "error", message, "use -10,000 in masks", node)


def _half_constants(opened: Opened) -> Iterator[onnx_ir.Value]:
    seen: set[onnx_ir.Value] = set()
    for node in opened.nodes:
        for value in node.inputs:
            if value is not None and value not in seen and _is_half(value) and constant(value) is not None:
                seen.add(value)
                yield value


def _check_constant(opened: Opened, value: onnx_ir.Value) -> Iterator[Finding]:
    tensor = constant(value)
    values = np.asarray(tensor.numpy()) if tensor is not None else np.zeros(0)
    node = next(iter(value.consumers()))
    if values.size and values.min() < MASK and node.op_type in ("Add", "Mul", "Sub", "Where"):
        message = f"the mask value {values.min():g} in float16: added twice it is minus infinity"
        yield opened.finding("ranges/mask", "error", message, "use -10,000 in masks", node)
    elif not np.isfinite(values).all() or (np.abs(values) >= LARGEST).any():
        message = f"the constant `{value.name}` has {np.abs(values).max():g}: cut off, or beyond float16"
        yield opened.finding("ranges/constant", "error", message, "keep it in float32", node)
    elif values.size <= EPSILONS and ((values != 0) & (np.abs(values) < SMALLEST)).any():
        tiny = float(values[(values != 0) & (np.abs(values) < SMALLEST)].flat[0])
        message = f"the constant `{value.name}` has {tiny:.3g}, which has lost digits in float16"
        yield opened.finding("ranges/vanishing", "warning", message, "keep it in float32", node)


def _is_half(value: onnx_ir.Value | None) -> bool:
    return value is not None and value.dtype == DataType.FLOAT16
