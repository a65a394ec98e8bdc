"""A graph in an older operator set than exporters write: for engines such as TensorRT 8.6, which reads set 17.

From 17 to 18 most operators only took more types. Those that changed their meaning and that a traced graph has are
spelled the old way; a graph with any other is refused.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir

from mmedge.errors import ModelError
from mmedge.export.spelling import initializer

OLDEST = 18
"""What exporters write at least."""

SAME = ("ScatterND", "ScatterElements")
"""Changed in 18 only by new values of an attribute that is left out here."""


def lower(program: onnx_ir.Model, opset: int) -> onnx_ir.Model:
    """``program``, of operator set `OLDEST`, in operator set ``opset``.

    Raises:
        ModelError: it has an operator that cannot be spelled there.
    """
    for node in list(program.graph):
        if node.domain or onnx.defs.get_schema(node.op_type, OLDEST).since_version <= opset or node.op_type in SAME:
            continue
        if node.op_type == "Split":
            _spell_sizes(program.graph, node)
        elif node.op_type.startswith("Reduce"):
            _spell_axes(node)
        else:
            raise ModelError(
                f"`{node.name}` cannot be written in operator set {opset}: {node.op_type} is of set {OLDEST} here",
                hint="choose a target that reads a newer operator set",
            )
    program.graph.opset_imports[""] = opset
    return program


def _spell_sizes(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    """Split into ``num_outputs`` parts came with 18; before, the sizes of the parts are an input."""
    if "num_outputs" not in node.attributes:
        return
    axis = node.attributes.get_int("axis", 0)
    sizes = [output.shape[axis] if output.shape else None for output in node.outputs]
    if not all(isinstance(size, int) for size in sizes):
        raise ModelError(f"`{node.name}` splits sizes that vary, which operator sets before {OLDEST} cannot")
    del node.attributes["num_outputs"]
    parts = initializer(graph, onnx_ir.tensor(np.array(sizes, np.int64), name=f"{node.name}_sizes"))
    node.resize_inputs(2)
    node.replace_input_with(1, parts)


def _spell_axes(node: onnx_ir.Node) -> None:
    """Axes became an input with 18; before, they are an attribute (of ReduceSum an input since 13)."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = node.inputs[1].const_value
        if axes is None:
            raise ModelError(f"`{node.name}` reduces computed axes, which operator sets before {OLDEST} cannot")
        node.attributes["axes"] = onnx_ir.AttrInt64s("axes", axes.numpy().tolist())
    node.resize_inputs(1)
