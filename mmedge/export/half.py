"""A graph in float16, with islands in float32 where its values ask for them.

For an engine that computes in whatever type it likes, inputs and outputs stay in float32, and so do norms and softmax.
For one that computes in the very types of the graph (TensorRT), values that are handed from graph to graph and the
cache are float16 too: they are read at every step. There norms and softmax stay in float32 only where their recorded
values are large: its kernels add up in float32 by themselves, and a cast on each side would keep it from fusing
attention.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
import onnx_ir
from onnx_ir.passes.common import IdentityEliminationPass, ShapeInferencePass
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from mmedge.export.spelling import own_constants, set_apart

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")

LARGEST = 8_000.0
"""A node that reads or makes larger values on the calibration data stays in float32: float16 ends at 65,504, and what
the device sees may be several times what calibration saw."""

SENSITIVE = ("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization", "Softmax")
"""They add up squares or exponentials."""

EXACT = ("Sin", "Cos", "Range", "Pow", "Exp", "Reciprocal", "ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL2")
"""Rotary angles grow with the position, and norms that are spelled out add up squares: no engine guards these."""


def to_float16(
    program: onnx_ir.Model,
    kept: set[str],
    ranges: Mapping[str, float],
    work: Path,
    *,
    typed: bool = False,
    edges: Collection[str] = (),
) -> onnx_ir.Model:
    """``program`` in float16, but for sensitive nodes, nodes named in ``kept`` and nodes with large values.

    ``ranges`` are the largest absolute values of tensors that were seen. Inputs and outputs stay in float32 but for
    those named in ``edges``.
    """
    graph = program.graph
    large = large_values(ranges)
    sensitive = EXACT if typed else (*SENSITIVE, *EXACT)
    in_float = [
        node
        for node in graph
        if node.op_type in sensitive or node.name in kept or (touches(node, large) and node.op_type not in QUANTIZERS)
    ]
    names = [str(node.name) for node in in_float]
    # The converter casts a value that two such nodes read twice, under the same name.
    own_constants(graph, in_float)
    set_apart(graph, in_float, each=True)
    ShapeInferencePass()(program)  # the converter needs the type of every value
    outer = [value.name for value in (*graph.inputs, *graph.outputs) if value.name not in edges]
    path = work / "apart.onnx"
    onnx_ir.save(program, path, external_data="apart.onnx.data", size_threshold_bytes=1024)
    model = onnx.load(path)
    _forget_types_of_constants(model.graph)
    program = onnx_ir.from_proto(
        convert_float_to_float16(
            model,
            keep_io_types=outer,
            disable_shape_infer=True,
            op_block_list=DEFAULT_OP_BLOCK_LIST,
            node_block_list=names,
        )
    )
    IdentityEliminationPass()(program)
    _skip_round_trips(program.graph)
    return program


def _forget_types_of_constants(graph: onnx.GraphProto) -> None:
    """The converter would take a constant that stays in float32 for one that it has converted."""
    constants = {tensor.name for tensor in graph.initializer}
    infos = [info for info in graph.value_info if info.name not in constants]
    del graph.value_info[:]
    graph.value_info.extend(infos)


def _skip_round_trips(graph: onnx_ir.Graph) -> None:
    """From a float32 node straight to the next: the converter goes through float16, where large values end."""
    for node in graph:
        before = node.inputs[0].producer() if _casts_to(node, onnx_ir.DataType.FLOAT) else None
        if before is None or not _casts_to(before, onnx_ir.DataType.FLOAT16):
            continue
        if before.inputs[0].dtype == onnx_ir.DataType.FLOAT:
            node.replace_input_with(0, before.inputs[0])
            if not node.outputs[0].is_graph_output():
                onnx_ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])


def _casts_to(node: onnx_ir.Node, kind: onnx_ir.DataType) -> bool:
    return node.op_type == "Cast" and node.attributes.get_int("to") == kind


def large_values(ranges: Mapping[str, float]) -> set[str]:
    """The tensors whose values are too large for float16 to be trusted with."""
    return {name for name, most in ranges.items() if most > LARGEST}


def touches(node: onnx_ir.Node, names: set[str]) -> bool:
    """Whether a node reads or makes one of the tensors ``names``."""
    return any(value is not None and value.name in names for value in (*node.inputs, *node.outputs))
