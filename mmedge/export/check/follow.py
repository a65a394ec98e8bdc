"""Where values go: through operators that only move them, to the operators that compute with them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir

from mmedge.export.check.opened import constant, given, rank

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""What integer kernels exist for."""

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split", "Gather", "MaxPool")
"""They move or choose values without changing them, so a dequantization can as well come behind them."""

_FARTHEST = 8


def behind(node: onnx_ir.Node) -> Iterator[tuple[onnx_ir.Usage, int | None]]:
    """Each use of the node's values by an operator that computes with them, and where the ``axis`` of its scales lies
    by then; None where there is none, or it cannot be told."""
    dimensions, scale = rank(node.inputs[0]), given(node, 1)
    axis = node.attributes.get_int("axis", 1) if scale is not None and rank(scale) == 1 else None
    start = axis % dimensions if axis is not None and dimensions else None
    yield from _follow(node.outputs[0], start, _FARTHEST)


def users(node: onnx_ir.Node) -> list[onnx_ir.Node]:
    """The operators that compute with what the node gives."""
    return [use.node for output in node.outputs for use, _ in _follow(output, None, _FARTHEST)]


def commuted_axis(node: onnx_ir.Node, axis: int | None) -> int | None:
    """Where an axis lies after a node that moves values."""
    if axis is None or node.op_type == "Identity":
        return axis
    if node.op_type == "Transpose":
        dimensions = rank(node.inputs[0]) or 0
        turned = list(node.attributes.get_ints("perm", range(dimensions)[::-1]))
        return turned.index(axis) if axis in turned else None
    return None


def _follow(value: onnx_ir.Value, axis: int | None, steps: int) -> Iterator[tuple[onnx_ir.Usage, int | None]]:
    for use in value.uses():
        if use.node.op_type in MOVES and use.idx == 0 and steps and constant(use.node.inputs[0]) is None:
            for output in use.node.outputs:
                yield from _follow(output, commuted_axis(use.node, axis), steps - 1)
        else:
            yield use, axis
