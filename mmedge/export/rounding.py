"""Float16 as an engine rounds it, spelled for one that does not.

On a processor without arithmetic in float16, ONNX Runtime computes a float16 graph in float32 and drops the casts in
between: nothing is rounded, and nothing overflows at 65,504. A graph judged so would always look well. Here the same
graph is spelled in float32 with two casts behind every operator that computes, to float16 and back, which ONNX Runtime
keeps. Products add up in float32, as TensorRT's do; what is stored between operators is float16.
"""

from __future__ import annotations

import numpy as np
import onnx_ir
from onnx_ir.passes.common import ShapeInferencePass

HALF, SINGLE = onnx_ir.DataType.FLOAT16, onnx_ir.DataType.FLOAT

MOVES = frozenset(
    {"Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose"}
    | {"Tile", "Unsqueeze", "Where"}
)
"""Operators that compute nothing: what they are given is float16 already."""


def has_half(program: onnx_ir.Model) -> bool:
    """Whether anything in it is float16."""
    graph = program.graph
    constants = graph.initializers.values()
    return any(value.dtype == HALF for value in (*graph.inputs, *graph.outputs, *constants))


def spell_rounding(program: onnx_ir.Model) -> onnx_ir.Model:
    """``program`` with the same inputs and outputs, rounding by itself wherever its values are float16."""
    graph = program.graph
    ShapeInferencePass()(program)  # every value's type
    nodes = list(graph)
    for value in graph.initializers.values():
        if value.dtype == HALF:
            value.const_value = onnx_ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.dtype = SINGLE
    for value in graph.inputs:
        if value.dtype == HALF and value.uses():
            _widen(graph, value, before=nodes[0])
    for node in nodes:
        _widen_attributes(node)
        for value in node.outputs:
            if value.dtype == HALF:
                _round(graph, node, value)
    return program


def _round(graph: onnx_ir.Graph, node: onnx_ir.Node, value: onnx_ir.Value) -> None:
    if node.op_type == "Cast":  # to float16: what it gives is rounded, and read as float32
        _widen(graph, value, after=node)
        return
    value.dtype = SINGLE
    if node.op_type in MOVES and not value.is_graph_output():
        return
    name = value.name
    value.name = f"{name}_exact"
    half = _cast(graph, node, value, HALF, str(name))
    onnx_ir.convenience.replace_all_uses_with(value, half, replace_graph_outputs=True)
    half.producer().replace_input_with(0, value)
    _widen(graph, half, after=half.producer())


def _widen(
    graph: onnx_ir.Graph, value: onnx_ir.Value, *, before: onnx_ir.Node | None = None, after: onnx_ir.Node | None = None
) -> None:
    """Let everyone read ``value`` in float32; as an output of the graph it stays as it is."""
    readers = [(use.node, use.idx) for use in value.uses()]
    if not readers:
        return
    node = onnx_ir.node("Cast", [value], {"to": SINGLE}, name=f"{value.name}_wide")
    node.outputs[0].name, node.outputs[0].dtype = f"{value.name}_wide", SINGLE
    if before is not None:
        graph.insert_before(before, node)
    else:
        graph.insert_after(after, node)
    for reader, index in readers:
        reader.replace_input_with(index, node.outputs[0])


def _cast(
    graph: onnx_ir.Graph, after: onnx_ir.Node, value: onnx_ir.Value, kind: onnx_ir.DataType, name: str
) -> onnx_ir.Value:
    node = onnx_ir.node("Cast", [value], {"to": kind}, name=f"{name}_rounded")
    output = node.outputs[0]
    output.name, output.dtype, output.shape = name, kind, value.shape
    graph.insert_after(after, node)
    return output


def _widen_attributes(node: onnx_ir.Node) -> None:
    """Constants that lie in an operator, as in Constant and ConstantOfShape."""
    for name, attribute in list(node.attributes.items()):
        if attribute.type == onnx_ir.AttributeType.TENSOR and attribute.value.dtype == HALF:
            node.attributes[name] = onnx_ir.AttrTensor(name, onnx_ir.tensor(attribute.value.numpy().astype(np.float32)))
