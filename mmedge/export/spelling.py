"""Spell the same graph another way, so that quantizers and engines find the patterns they look for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass, ShapeInferencePass
from onnxscript.optimizer import fold_constants

UNLIMITED = 1 << 62


def load_plain(path: Path) -> onnx_ir.Model:
    """A graph without computed constants, with the shapes of all its values and a name for each node."""
    program = onnx_ir.load(path)
    # The exporter leaves large ones, such as joined query, key and value weights, to be computed by the engine.
    fold_constants(program, input_size_limit=UNLIMITED, output_size_limit=UNLIMITED)
    RemoveUnusedNodesPass()(program)
    NameFixPass()(program)
    ShapeInferencePass()(program)
    return program


def constant(value: onnx_ir.Value | None) -> onnx_ir.TensorProtocol | None:
    """The tensor of an initializer; None for what is computed or fed."""
    return value.const_value if value is not None and value.is_initializer() else None


def weight(node: onnx_ir.Node) -> onnx_ir.TensorProtocol | None:
    """The constant float32 matrix or kernel that a MatMul, Gemm or Conv multiplies with."""
    if node.domain or node.op_type not in ("MatMul", "Gemm", "Conv"):
        return None
    tensor = constant(node.inputs[1])
    if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or constant(node.inputs[0]) is not None:
        return None
    return tensor if node.op_type == "Conv" or len(tensor.shape) == 2 else None


def bias_add(node: onnx_ir.Node) -> onnx_ir.Node | None:
    """The Add of a constant vector that alone reads this MatMul's output."""
    output = node.outputs[0]
    users = output.uses()
    if len(users) != 1 or output.is_graph_output():
        return None
    add = users[0].node
    vector = constant(add.inputs[1 - users[0].idx]) if add.op_type == "Add" else None
    outputs = node.inputs[1].shape[1]
    return add if vector is not None and vector.size == vector.shape[-1] == outputs else None


def spell_as_gemm(graph: onnx_ir.Graph, nodes: Iterable[onnx_ir.Node]) -> list[onnx_ir.Node]:
    """Each ``MatMul -> Add`` among ``nodes`` becomes ``Reshape -> Gemm -> Reshape`` with the name of the MatMul; nodes
    that read the same value share the first Reshape. What cannot be spelled so is returned as it is."""
    flat: dict[onnx_ir.Value, onnx_ir.Value] = {}
    return [_as_gemm(graph, node, flat) for node in nodes]


def _as_gemm(graph: onnx_ir.Graph, node: onnx_ir.Node, flat: dict[onnx_ir.Value, onnx_ir.Value]) -> onnx_ir.Node:
    add = bias_add(node) if node.op_type == "MatMul" else None
    if add is None or node.outputs[0].shape is None:
        return node
    source, matrix = node.inputs
    vector = _as_vector(graph, next(value for value in add.inputs if value is not node.outputs[0]))
    if source not in flat:
        rows = _integers(graph, f"{source.name}_rows_shape", [-1, matrix.shape[0]])
        flat[source] = insert(graph, node, "Reshape", [source, rows], f"{source.name}_rows", source.dtype)
    product = insert(graph, add, "Gemm", [flat[source], matrix, vector], f"{node.name}_product", source.dtype)
    gemm = product.producer()
    target = _shape_of_product(graph, add, source, node)
    back = insert(graph, add, "Reshape", [product, target], f"{add.name}_shaped", source.dtype)
    replace(graph, add, back)
    graph.remove(node, safe=True)
    gemm.name = node.name
    return gemm


def _as_vector(graph: onnx_ir.Graph, value: onnx_ir.Value) -> onnx_ir.Value:
    """A bias without leading ones: only a vector has one scale for each output."""
    if len(value.shape) == 1:
        return value
    return initializer(graph, onnx_ir.tensor(value.const_value.numpy().ravel(), name=f"{value.name}_vector"))


def spell_as_matmul(graph: onnx_ir.Graph, nodes: Iterable[onnx_ir.Node]) -> list[onnx_ir.Node]:
    """Each Gemm among ``nodes`` that is ``x W + b`` becomes ``MatMul -> Add``, its weight ``[inputs, outputs]``; others
    are left out."""
    return [
        node if node.op_type == "MatMul" else _as_matmul(graph, node)
        for node in nodes
        if node.op_type == "MatMul" or _is_plain_gemm(node)
    ]


def _as_matmul(graph: onnx_ir.Graph, node: onnx_ir.Node) -> onnx_ir.Node:
    source, matrix, *rest = node.inputs
    if node.attributes.get_int("transB", 0):
        tensor = onnx_ir.tensor(np.ascontiguousarray(matrix.const_value.numpy().T), name=f"{matrix.name}_{node.name}")
        matrix = initializer(graph, tensor)
    product = insert(graph, node, "MatMul", [source, matrix], f"{node.name}_product", source.dtype)
    matmul = product.producer()
    final = insert(graph, node, "Add", [product, rest[0]], f"{node.name}_sum", source.dtype) if rest else product
    replace(graph, node, final)
    final.producer().name, matmul.name = f"{node.name}_bias", node.name
    return matmul


def _is_plain_gemm(node: onnx_ir.Node) -> bool:
    """``x W + b``, as a linear layer on rows exports."""
    attributes = node.attributes
    scales = (attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    return node.op_type == "Gemm" and not attributes.get_int("transA", 0) and all(scale == 1.0 for scale in scales)


def own_constants(graph: onnx_ir.Graph, nodes: Iterable[onnx_ir.Node]) -> None:
    """Give ``nodes`` copies of the constants they share: a quantizer changes a constant for everyone who reads it."""
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if constant(value) is not None and len(value.uses()) > 1:
                tensor = onnx_ir.tensor(value.const_value.numpy(), name=f"{value.name}_{node.name}")
                node.replace_input_with(index, initializer(graph, tensor))


def set_apart(graph: onnx_ir.Graph, nodes: Iterable[onnx_ir.Node], *, each: bool = False) -> None:
    """Let ``nodes`` read what others also read through an Identity, together or ``each`` through its own: a converter
    that changes the values they read then leaves the others alone."""
    chosen = {node: str(index) if each else "" for index, node in enumerate(nodes)}
    copies: dict[tuple[onnx_ir.Value, str], onnx_ir.Value] = {}
    for node, group in chosen.items():
        for index, value in enumerate(node.inputs):
            if value is None or value.is_initializer():
                continue
            if (value, group) not in copies and _is_read_by_others(value, chosen, group):
                copies[value, group] = insert(
                    graph, node, "Identity", [value], f"{value.name}_apart{group}", value.dtype
                )
            if (value, group) in copies:
                node.replace_input_with(index, copies[value, group])


def _is_read_by_others(value: onnx_ir.Value, chosen: dict[onnx_ir.Node, str], group: str) -> bool:
    return value.is_graph_output() or any(chosen.get(use.node) != group for use in value.uses())


def insert(
    graph: onnx_ir.Graph,
    before: onnx_ir.Node,
    op_type: str,
    inputs: Sequence[onnx_ir.Value],
    name: str,
    dtype: onnx_ir.DataType,
    attributes: Mapping[str, int] | None = None,
) -> onnx_ir.Value:
    """The output of a new node, called as the node is."""
    node = onnx_ir.node(op_type, inputs, attributes, name=name)
    output = node.outputs[0]
    output.name, output.dtype = name, dtype
    graph.insert_before(before, node)
    return output


def replace(graph: onnx_ir.Graph, node: onnx_ir.Node, value: onnx_ir.Value) -> None:
    """Let a new value take the place of all that a node makes; it and the node that makes it take over the names."""
    old, maker = node.outputs[0], value.producer()
    onnx_ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    value.name, value.shape, maker.name = old.name, old.shape, node.name


def _integers(graph: onnx_ir.Graph, name: str, values: list[int]) -> onnx_ir.Value:
    if name in graph.initializers:
        return graph.initializers[name]
    return initializer(graph, onnx_ir.tensor(np.array(values, np.int64), name=name))


def initializer(graph: onnx_ir.Graph, tensor: onnx_ir.TensorProtocol) -> onnx_ir.Value:
    """A new constant of the graph."""
    value = onnx_ir.Value(
        name=tensor.name, shape=tensor.shape, type=onnx_ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def _shape_of_product(
    graph: onnx_ir.Graph, before: onnx_ir.Node, source: onnx_ir.Value, product: onnx_ir.Node
) -> onnx_ir.Value:
    """What Reshape gives the rows of a product back; where several sizes vary they are asked of ``source``."""
    sizes = [size if isinstance(size, int) else -1 for size in product.outputs[0].shape]
    if sizes.count(-1) <= 1:
        return _integers(graph, f"{product.name}_shape", sizes)
    outer = insert(graph, before, "Shape", [source], f"{product.name}_outer", onnx_ir.DataType.INT64, {"end": -1})
    width = _integers(graph, f"{product.name}_width", sizes[-1:])
    name, kind = f"{product.name}_shape", onnx_ir.DataType.INT64
    return insert(graph, before, "Concat", [outer, width], name, kind, {"axis": 0})
