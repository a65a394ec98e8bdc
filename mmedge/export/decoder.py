"""What is done to a decoder's graph for engines with a fixed cache: the token is chosen inside the graph.

So eight bytes a step leave the device instead of the scores of a whole vocabulary, and the token is where the next
step reads it. The product that makes those scores is by far the widest of a decoder; where an engine would ask for
more memory in one piece than the device can give, it is split. (TensorRT's compiler takes one and a half times the
weight in float16 for it, which on an Orin Nano fails above about half a gigabyte whatever workspace is allowed.)

The exporter guards every masked attention against rows that see nothing. With a fixed cache each token sees at least
itself, so those guards are taken out.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir
from onnxscript.optimizer import fold_constants

from mmedge.core.ports import Port
from mmedge.export.spelling import UNLIMITED, initializer, insert, replace

TOKEN = Port("token", "int64", (1, 1))

SCRATCH = 1.5
"""Bytes asked for in one piece, per byte of the weight in float16."""

MIB = 1 << 20


def close_decoder(program: onnx_ir.Model, contiguous_mb: int, *, scatter: bool = False) -> None:
    """Choose the token in the graph, and split what needs more than ``contiguous_mb`` MiB in one piece; 0: no limit.

    With ``scatter`` the cache is written by TensorScatter, of operator set 24.
    """
    fold_constants(program, input_size_limit=UNLIMITED, output_size_limit=UNLIMITED)
    drop_guards(program.graph)
    if scatter:
        write_in_place(program.graph)
    choose_token(program.graph)
    if contiguous_mb:
        split_wide_products(program.graph, contiguous_mb)


def write_in_place(graph: onnx_ir.Graph) -> None:
    """Spell how `FixedCache` writes as TensorScatter, which an engine can do in place: a step then touches its own
    slots only, not the whole cache."""
    position = next(value for value in graph.inputs if value.name == "cache_position")
    for present in list(graph.outputs):
        node = present.producer()
        past = node.inputs[2] if node is not None and node.op_type == "Where" else None
        if past is None or past not in graph.inputs or node.inputs[1].producer().op_type != "Gather":
            continue
        new = node.inputs[1].producer().inputs[0]
        name, inputs = f"{node.name}_scattered", [past, new, position]
        replace(graph, node, insert(graph, node, "TensorScatter", inputs, name, past.dtype, {"axis": -2}))


def choose_token(graph: onnx_ir.Graph) -> None:
    """Add the output ``token``, int64 in the shape of ``logits`` without its last axis: the likeliest."""
    logits = next(value for value in graph.outputs if value.name == "logits")
    attributes = {"axis": -1, "keepdims": 0}
    node = onnx_ir.node("ArgMax", [logits], attributes, name="token/ArgMax")
    token = node.outputs[0]
    token.name, token.dtype = TOKEN.name, onnx_ir.DataType.INT64
    token.shape = onnx_ir.Shape(logits.shape.dims[:-1])
    graph.append(node)
    graph.outputs.insert(0, token)


GUARD = ("Where", "Less", "ReduceSum", "Cast", "Greater")
"""From the guarded attention back to its mask, each by its first input."""


def drop_guards(graph: onnx_ir.Graph) -> None:
    """Take out what sets rows to zero that ``attention_bias`` hides from everything: neither windows nor blocks hide a
    token from itself."""
    for node in list(graph):
        if node.op_type == GUARD[0] and _watches_bias(node):
            onnx_ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[2])
            graph.remove(node, safe=True)


def _watches_bias(node: onnx_ir.Node | None) -> bool:
    for kind in GUARD:
        if node is None or node.op_type != kind or node.inputs[0] is None:
            return False
        value, node = node.inputs[0], node.inputs[0].producer()
    while node is not None and node.op_type == "Where" and node.inputs[2] is not None:  # windows and blocks
        value, node = node.inputs[2], node.inputs[2].producer()
    return value.name == "attention_bias"


def split_wide_products(graph: onnx_ir.Graph, contiguous_mb: int) -> None:
    """Split each ``MatMul`` whose weight would need more than ``contiguous_mb`` MiB in one piece, by its columns.

    The parts are joined again: exactly the same numbers.
    """
    for node in list(graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or weight.const_value is None or len(weight.shape or ()) != 2:
            continue
        parts = math.ceil(parts_needed(weight.const_value.size, contiguous_mb))
        if parts > 1:
            _split(graph, node, weight.const_value, parts)


def parts_needed(elements: int, contiguous_mb: int) -> float:
    """How many times a product with a weight of so many elements exceeds the limit; at most 1 is none."""
    return elements * 2 * SCRATCH / (contiguous_mb * MIB)


def _split(graph: onnx_ir.Graph, node: onnx_ir.Node, weight: onnx_ir.TensorProtocol, parts: int) -> None:
    source, dtype = node.inputs[0], node.outputs[0].dtype
    assert source is not None and dtype is not None
    outputs = []
    for index, columns in enumerate(np.array_split(weight.numpy(), parts, axis=1)):
        tensor = onnx_ir.tensor(np.ascontiguousarray(columns), name=f"{weight.name}.{index}")
        name = f"{node.name}_{index}"
        outputs.append(insert(graph, node, "MatMul", [source, initializer(graph, tensor)], name, dtype))
    joined = insert(graph, node, "Concat", outputs, f"{node.name}_joined", dtype, {"axis": -1})
    replace(graph, node, joined)
