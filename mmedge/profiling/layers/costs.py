"""What a node has to compute and to move, from its operator, its types and the shapes it was really given.

Floating point operations count a multiplication and an addition as two; operations on every element count one each, so
that they weigh next to nothing beside a product, as they should. Bytes are those of all tensors that a node reads and
makes: weights as they lie in the file, quantized; of a table the rows that are looked up. What only gives a tensor
another shape moves nothing.

Whole graphs are counted otherwise: between its nodes a good engine moves nothing through memory, so that of a run only
weights, inputs and outputs count, and of a growing cache what is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from mmedge.core.onnx_graph import Node, OnnxGraph, Tensor

Shapes: TypeAlias = Mapping[str, Tensor]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Shape", "Size", "Dropout"})
MOVERS = _names(
    "Transpose Concat Split Slice Expand Tile Pad Cast CastLike Gather GatherElements GatherND Scatter ScatterND "
    "ScatterElements TensorScatter Where Range Constant ConstantOfShape OneHot Compress Trilu DepthToSpace "
    "SpaceToDepth NonZero TopK EyeLike ReverseSequence"
)
"""They compute nothing."""
ELEMENTWISE = _names(
    "Add Sub Mul Div Neg Abs Sqrt Reciprocal Exp Log Pow Erf Sin Cos Tanh Sigmoid HardSigmoid Relu LeakyRelu PRelu "
    "Elu Gelu FastGelu BiasGelu QuickGelu HardSwish Swish Mish Softplus Softsign Clip Min Max Mean Sum Floor Ceil "
    "Round Sign Mod Not And Or Xor Greater GreaterOrEqual Less LessOrEqual Equal IsNaN IsInf Softmax LogSoftmax "
    "LayerNormalization SkipLayerNormalization RMSNormalization SimplifiedLayerNormalization "
    "SkipSimplifiedLayerNormalization InstanceNormalization GroupNormalization BatchNormalization LpNormalization "
    "RotaryEmbedding CumSum QuantizeLinear DequantizeLinear DynamicQuantizeLinear BitShift BitwiseAnd BitwiseOr "
    "BitwiseNot"
)
"""One operation for each element of the largest tensor."""
REDUCTIONS = _names(
    "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp ArgMax "
    "ArgMin GlobalAveragePool GlobalMaxPool AveragePool MaxPool Resize"
)
"""Likewise."""
SOURCES = {"Gather": 0, "GatherElements": 0, "GatherND": 0}
"""The input of which only what is looked up is read."""


@dataclass(frozen=True)
class Cost:
    """Of one node in one run."""

    flops: int = 0
    weights: int = 0
    """Bytes of constants that are read."""
    moved: int = 0
    """Bytes of all other tensors."""
    quantized: bool = False
    """Whether its product has a quantized weight."""
    known: bool = True
    """False of an operator whose flops nobody told us."""


class Run(NamedTuple):
    """What one run of a graph has to do at least."""

    quantized_flops: int
    rest_flops: int
    weights: int
    """Bytes."""
    fed: int
    """Bytes of inputs, with the cache."""
    written: int
    """Bytes of outputs, with what is new in the cache."""
    nodes: dict[str, Cost]

    @property
    def read(self) -> int:
        """Bytes that are read."""
        return self.weights + self.fed

    @property
    def unknown(self) -> tuple[str, ...]:
        """Nodes whose flops are not counted."""
        return tuple(name for name, cost in self.nodes.items() if not cost.known)


def run_costs(graph: OnnxGraph, made: Mapping[str, tuple[Tensor, ...]], fed: Shapes) -> Run:
    """Of a run in which the nodes made tensors of these types and shapes, by the name of the node, from the inputs
    ``fed``."""
    shapes = _all_shapes(graph, made, fed)
    stored = stored_constants(graph)
    dequantized = _dequantized(graph)
    nodes: dict[str, Cost] = {}
    for node in graph.nodes:
        if not any(name in stored for name in node.outputs):
            nodes[node.name] = node_cost(node, shapes, stored, dequantized)
    products = sum(cost.flops for cost in nodes.values() if cost.quantized)
    flops = sum(cost.flops for cost in nodes.values())
    fed_bytes = sum(shapes[name].bytes for name in graph.inputs if name in shapes)
    weights = _weights(graph, nodes, stored, shapes)
    return Run(products, flops - products, weights, fed_bytes, _written(graph, shapes), nodes)


def node_cost(node: Node, shapes: Shapes, stored: Mapping[str, int], dequantized: Mapping[str, str]) -> Cost:
    """``stored`` are the bytes of constants and of what is computed from constants alone, ``dequantized`` the names of
    tensors before a DequantizeLinear, by the name after it."""
    inputs = [name for name in node.inputs if name]
    weights = sum(stored[name] for place, name in enumerate(inputs) if name in stored and SOURCES.get(node.op) != place)
    if node.op in VIEWS:
        return Cost()
    if node.op == "DequantizeLinear":  # engines do that where the value is read
        return Cost(_largest(node, shapes))
    fed = [dequantized.get(name, name) for name in inputs if name not in stored]
    moved = sum(shapes[name].bytes for name in (*fed, *node.outputs) if name in shapes)
    if node.op in SOURCES:
        moved += sum(shapes[name].bytes for name in node.outputs if name in shapes)
        if inputs[0] not in stored:
            moved -= shapes[inputs[0]].bytes if inputs[0] in shapes else 0
    flops = flops_of(node, shapes)
    return Cost(flops or 0, weights, moved, _is_quantized(node, stored, dequantized), flops is not None)


def flops_of(node: Node, shapes: Shapes) -> int | None:
    """None for an operator that is not known, or whose shapes are not."""
    if node.op in MOVERS or node.op in VIEWS:
        return 0
    if node.op in ELEMENTWISE or node.op in REDUCTIONS:
        return _largest(node, shapes)
    try:
        return PRODUCTS[node.op](node, shapes)
    except (KeyError, IndexError):
        return None


def stored_constants(graph: OnnxGraph) -> dict[str, int]:
    """Bytes of constants, and for what is computed from constants alone, of those it is computed from."""
    stored = {name: tensor.bytes for name, tensor in graph.constants.items()}
    for node in graph.nodes:
        inputs = [name for name in node.inputs if name]
        if inputs and all(name in stored for name in inputs) and node.op not in SOURCES:
            stored |= dict.fromkeys(node.outputs, sum(stored[name] for name in inputs))
    return stored


def _weights(graph: OnnxGraph, nodes: Mapping[str, Cost], stored: Mapping[str, int], shapes: Shapes) -> int:
    """Constants that several nodes read count once; what is looked up counts as many rows."""
    read = {
        name
        for node in graph.nodes
        if node.name in nodes and node.op not in VIEWS
        for place, name in enumerate(node.inputs)
        if name in stored and SOURCES.get(node.op) != place
    }
    looked_up = (
        shapes[node.outputs[0]].bytes
        for node in graph.nodes
        if node.op in SOURCES and node.inputs[0] in stored and node.outputs[0] in shapes
    )
    return sum(stored[name] for name in read) + sum(looked_up)


def _written(graph: OnnxGraph, shapes: Shapes) -> int:
    """Of a cache that grows only what is new; one of fixed length goes from one set of buffers to another."""
    written = 0
    for name in graph.outputs:
        made = shapes[name].bytes if name in shapes else 0
        past = shapes.get(name.replace("present.", "past.", 1)) if name.startswith("present.") else None
        written += made - past.bytes if past and past.bytes < made else made
    return written


def _all_shapes(graph: OnnxGraph, made: Mapping[str, tuple[Tensor, ...]], fed: Shapes) -> dict[str, Tensor]:
    """By tensor. Of nodes that the engine ran in other words nothing is told, but for most it can be said."""
    shapes = {**graph.constants, **fed}
    for node in graph.nodes:
        told = made.get(node.name) or _broadcast(node, shapes)
        shapes |= zip(filter(None, node.outputs), told, strict=False)
    return shapes


def _broadcast(node: Node, shapes: Shapes) -> tuple[Tensor, ...]:
    read = [shapes[name] for name in node.inputs if name in shapes]
    if node.op not in ELEMENTWISE or not read:
        return ()
    return (Tensor(read[0].dtype, np.broadcast_shapes(*(tensor.shape for tensor in read))),)


def _dequantized(graph: OnnxGraph) -> dict[str, str]:
    return {node.outputs[0]: node.inputs[0] for node in graph.nodes if node.op == "DequantizeLinear"}


def _is_quantized(node: Node, stored: Mapping[str, int], dequantized: Mapping[str, str]) -> bool:
    if node.op not in PRODUCTS or node.op in ATTENTIONS:
        return False
    return node.op not in FLOAT_PRODUCTS or any(name in stored and name in dequantized for name in node.inputs)


def _largest(node: Node, shapes: Shapes) -> int:
    return max((shapes[name].size for name in (*node.inputs, *node.outputs) if name in shapes), default=0)


def _matmul(node: Node, shapes: Shapes) -> int:
    left, made = shapes[node.inputs[0]], shapes[node.outputs[0]]
    return 2 * made.size * (left.shape[-1] if left.shape else 1)


def _gemm(node: Node, shapes: Shapes) -> int:
    left, made = shapes[node.inputs[0]], shapes[node.outputs[0]]
    return 2 * made.size * left.shape[0 if node.numbers.get("transA") else 1] + (
        made.size if len(node.inputs) > 2 else 0
    )


def _blocks(node: Node, shapes: Shapes) -> int:
    left = shapes[node.inputs[0]]
    return 2 * math.prod(left.shape[:-1]) * node.numbers["K"] * node.numbers["N"]


def _conv(node: Node, shapes: Shapes, kernel: int = 1) -> int:
    return 2 * shapes[node.outputs[0]].size * math.prod(shapes[node.inputs[kernel]].shape[1:])


def _transposed_conv(node: Node, shapes: Shapes) -> int:
    return 2 * shapes[node.inputs[0]].size * math.prod(shapes[node.inputs[1]].shape[1:])


def _attention(node: Node, shapes: Shapes) -> int:
    """Scores and what they weigh; a causal mask spares nothing here."""
    query, key = shapes[node.inputs[0]], shapes[node.inputs[1]]
    length = shapes[node.outputs[1]].shape[2] if len(node.outputs) > 1 and node.outputs[1] in shapes else key.shape[-2]
    if len(query.shape) == 4:
        return 4 * query.size * length
    value = shapes[node.inputs[2]]
    heads = node.numbers.get("q_num_heads", 1)
    width = heads * value.shape[-1] // node.numbers.get("kv_num_heads", heads)
    return 2 * math.prod(query.shape[:-1]) * length * (query.shape[-1] + width)


def _grouped(node: Node, shapes: Shapes) -> int:
    """GroupQueryAttention: the cache's length is that of its buffer."""
    rows = math.prod(shapes[node.inputs[0]].shape[:-1])
    keys = shapes[node.outputs[1]].shape
    return 4 * rows * node.numbers["num_heads"] * keys[-1] * keys[-2]


FLOAT_PRODUCTS: dict[str, Callable[[Node, Shapes], int]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "FusedConv": _conv,
    "ConvTranspose": _transposed_conv,
    "FusedMatMul": _matmul,
}
ATTENTIONS: dict[str, Callable[[Node, Shapes], int]] = {
    "Attention": _attention,
    "MultiHeadAttention": _attention,
    "GroupQueryAttention": _grouped,
}
PRODUCTS: dict[str, Callable[[Node, Shapes], int]] = {
    **FLOAT_PRODUCTS,
    **ATTENTIONS,
    "MatMulNBits": _blocks,
    "MatMulInteger": _matmul,
    "DynamicQuantizeMatMul": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "ConvInteger": _conv,
    "QLinearConv": lambda node, shapes: _conv(node, shapes, kernel=3),
}
