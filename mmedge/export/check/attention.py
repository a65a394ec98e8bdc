"""Attention that is quantized by halves: it is no longer fused, and slower than in float16."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import onnx_ir

from mmedge.export.check.findings import Finding
from mmedge.export.check.follow import MOVES
from mmedge.export.check.opened import Opened, constant

BETWEEN = ("Add", "Cast", "DequantizeLinear", "Div", "Mul", "QuantizeLinear", "Where", *MOVES)
"""What may stand between the scores, the softmax and the product with the values."""

_FARTHEST = 8


def check_attention(opened: Opened) -> Iterator[Finding]:
    """All four factors around a softmax are quantized, or none."""
    for node in opened.nodes:
        if node.op_type != "Softmax":
            continue
        before = _product(node, lambda each: each.predecessors())
        after = _product(node, lambda each: each.successors())
        if before is None or after is None:
            continue
        quantized = [_is_quantized(value) for product in (before, after) for value in product.inputs]
        if any(quantized) and not all(quantized):
            message = f"{sum(quantized)} of the 4 factors of its attention are quantized"
            hint = f"leave `{before.name}` and `{after.name}` in float16, or quantize both whole"
            yield opened.finding("qdq/attention", "warning", message, hint, node)


def _product(softmax: onnx_ir.Node, step: Callable[[onnx_ir.Node], Iterable[onnx_ir.Node]]) -> onnx_ir.Node | None:
    """The nearest product of two activations in one direction."""
    reached = [softmax]
    for _ in range(_FARTHEST):
        reached = [each for node in reached for each in step(node)]
        found = [node for node in reached if node.op_type == "MatMul" and not any(map(constant, node.inputs))]
        if found:
            return found[0]
        reached = [node for node in reached if node.op_type in BETWEEN]
    return None


def _is_quantized(value: onnx_ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in (*MOVES, "Cast"):
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node is not None and node.op_type == "DequantizeLinear"
