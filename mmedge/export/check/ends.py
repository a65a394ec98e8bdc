"""The first convolution and the last product of a model: in integers they save little time and cost much accuracy."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir

from mmedge.export.check.findings import Finding
from mmedge.export.check.follow import MOVES, PRODUCTS
from mmedge.export.check.opened import Opened

BETWEEN = ("Add", "Cast", "Concat", *MOVES)
"""What may stand between a decoder's last product and its scores."""

_FARTHEST = 4


def check_ends(opened: Opened) -> Iterator[Finding]:
    """A convolution that reads quantized pixels, or a decoder's product that makes its scores from integers."""
    for node in opened.nodes:
        if node.op_type not in PRODUCTS or (quantized := _quantized(node)) is None:
            continue
        if node.op_type == "Conv" and quantized.is_graph_input():
            message = f"the first convolution reads `{quantized.name}` in integers"
            yield opened.finding("qdq/first", "warning", message, "leave it in float: add its name to `keep`", node)
        if opened.graph.cache and _gives_scores(node):
            message = "the product that makes the decoder's scores is quantized"
            yield opened.finding("qdq/last", "warning", message, "leave it in float: add its name to `keep`", node)


def _quantized(product: onnx_ir.Node) -> onnx_ir.Value | None:
    """The float value behind the activation that it reads as integers."""
    value = product.inputs[0]
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        node = value.producer() if value is not None else None
        if node is None or node.op_type != kind:
            return None
        value = node.inputs[0]
    return value


def _gives_scores(product: onnx_ir.Node) -> bool:
    reached = [product]
    for _ in range(_FARTHEST):
        if any(output.is_graph_output() for node in reached for output in node.outputs):
            return True
        reached = [user for node in reached for user in node.successors() if user.op_type in BETWEEN]
    return False
