"""Float16 inside, float32 at the edges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
from onnx_ir.passes.common import IdentityEliminationPass
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from mmedge.core.ports import Tensors
from mmedge.export.spelling import own_constants, set_apart
from mmedge.export.static_int8 import measure_ranges

LARGEST = 8_000.0
"""A node that reads or makes larger values on the calibration data stays in float32: float16 ends at 65,504, and what
the device sees may be several times what calibration saw."""

SENSITIVE = ("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization", "Softmax")
"""They add up squares or exponentials."""


def to_float16(program: onnx_ir.Model, kept: set[str], feeds: Sequence[Tensors], work: Path) -> onnx_ir.Model:
    """``program`` in float16, but for norms, softmax, nodes named in ``kept`` and nodes with large values on ``feeds``;
    inputs and outputs stay in float32."""
    graph = program.graph
    large = _large_values(program, feeds, work) if feeds else set()
    in_float = [node for node in graph if node.op_type in SENSITIVE or node.name in kept or _touches(node, large)]
    names = [str(node.name) for node in in_float]
    # The converter casts a value that two such nodes read twice, under the same name.
    own_constants(graph, in_float)
    set_apart(graph, in_float, each=True)
    path = work / "apart.onnx"
    onnx_ir.save(program, path, external_data="apart.onnx.data", size_threshold_bytes=1024)
    model = onnx.load(path)
    _forget_types_of_constants(model.graph)
    program = onnx_ir.from_proto(
        convert_float_to_float16(
            model,
            keep_io_types=True,
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


def _large_values(program: onnx_ir.Model, feeds: Sequence[Tensors], work: Path) -> set[str]:
    path = work / "float.onnx"
    onnx_ir.save(program, path, external_data="float.onnx.data", size_threshold_bytes=1024)
    ranges = measure_ranges(path, feeds, "minmax", work)
    return {name for name, data in ranges.items() if LARGEST < np.abs(data.range_value).max() < np.inf}


def _touches(node: onnx_ir.Node, names: set[str]) -> bool:
    return any(value is not None and value.name in names for value in (*node.inputs, *node.outputs))
