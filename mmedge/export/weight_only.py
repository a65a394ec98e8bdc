"""Weights alone in 8 or 4 bits, as ``DequantizeLinear(block) -> MatMul``: one spelling for every engine.

ONNX Runtime fuses it to MatMulNBits and OpenVINO keeps the weights compressed (checked in their executed graphs,
onnxruntime 1.23 and 1.31, openvino 2026.4). nncf is not used here: its int8 weights have one scale per channel, which
ONNX Runtime does not fuse (every weight is dequantized at every token, 0.2 times the speed of float32), and its int4
embeddings are refused by ONNX Runtime.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir

from mmedge.export.spelling import constant, initializer, insert, spell_as_matmul, weight

BLOCKS = (64, 32, 16)
"""Weights that share a scale, the preferred number first; MatMulNBits takes no less than 16."""

SMALLEST_TABLE = 1 << 20
"""Bytes of a float embedding table that is worth an extra Cast and Mul."""


def quantize_weights(program: onnx_ir.Model, kept: set[str], bits: int) -> tuple[onnx_ir.Model, tuple[str, ...]]:
    """``program`` with the weights of its matrix products in ``bits``, and its large embedding tables in 8 bits.

    The product that makes the logits has 8 bits in any case.
    """
    graph = program.graph
    nodes = [node for node in graph if node.name not in kept]
    products = spell_as_matmul(graph, [node for node in nodes if weight(node) is not None and node.op_type != "Conv"])
    warnings = [_quantize_product(graph, node, 8 if _makes_logits(node) else bits) for node in products]
    for node in nodes:
        if _is_large_lookup(node):
            _quantize_lookup(graph, node)
    return program, tuple(filter(None, warnings))


def _quantize_product(graph: onnx_ir.Graph, node: onnx_ir.Node, bits: int) -> str:
    """Replace the weight of a MatMul; returns a warning where it cannot be."""
    matrix = node.inputs[1]
    inputs = matrix.shape[0]
    block = next((block for block in BLOCKS if inputs % block == 0), None)
    if block is None:
        return f"`{node.name}` stays in float32: its {inputs} inputs are no multiple of {BLOCKS[-1]}"
    values, scales = quantize_blocks(matrix.const_value.numpy(), bits, block)
    parts = [
        initializer(graph, onnx_ir.tensor(values, name=f"{node.name}_weight_int{bits}")),
        initializer(graph, onnx_ir.tensor(scales, name=f"{node.name}_weight_scale")),
    ]
    dequantized = insert(
        graph, node, "DequantizeLinear", parts, f"{node.name}_weight", matrix.dtype, {"axis": 0, "block_size": block}
    )
    node.replace_input_with(1, dequantized)
    return ""


def quantize_blocks(matrix: np.ndarray, bits: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric ``values [inputs, outputs]`` and ``scales [inputs / block, outputs]`` of a float32 matrix.

    ONNX Runtime's own kernel does the arithmetic; it packs each column's values, offset to be unsigned.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=True, bits=bits)
    packed, scales, _ = DefaultWeightOnlyQuantizer(config).qbits_block_quant(np.ascontiguousarray(matrix))
    inputs, outputs = matrix.shape
    unsigned = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=-1)
    values = unsigned.reshape(outputs, inputs).astype(np.int16) - (1 << bits - 1)
    kind = np.int8 if bits == 8 else ml_dtypes.int4
    return np.ascontiguousarray(values.T.astype(np.int8)).astype(kind), np.ascontiguousarray(
        scales.reshape(outputs, -1).T
    )


def _makes_logits(node: onnx_ir.Node) -> bool:
    """Whether a graph output is this product, with its bias at most."""
    output = node.outputs[0]
    sums = [use.node.outputs[0] for use in output.uses() if use.node.op_type == "Add"]
    return any(value.is_graph_output() for value in (output, *sums))


def _is_large_lookup(node: onnx_ir.Node) -> bool:
    table = constant(node.inputs[0]) if node.op_type == "Gather" else None
    if table is None or table.dtype != onnx_ir.DataType.FLOAT or len(table.shape) != 2:
        return False
    return table.nbytes >= SMALLEST_TABLE and node.attributes.get_int("axis", 0) == 0


def _quantize_lookup(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    """Look up int8 rows and their scales, and multiply: engines would dequantize a whole table before the lookup."""
    table, rows = node.inputs
    name, kind = node.name, table.dtype
    floats = table.const_value.numpy()
    scales = np.maximum(np.abs(floats).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny).astype(np.float32)
    values = np.rint(floats / scales).astype(np.int8)
    codes = initializer(graph, onnx_ir.tensor(values, name=f"{name}_table_int8"))
    steps = initializer(graph, onnx_ir.tensor(scales, name=f"{name}_table_scale"))
    code = insert(graph, node, "Gather", [codes, rows], f"{name}_codes", onnx_ir.DataType.INT8)
    step = insert(graph, node, "Gather", [steps, rows], f"{name}_steps", kind)
    wide = insert(graph, node, "Cast", [code], f"{name}_wide", kind, {"to": kind})
    product = insert(graph, node, "Mul", [wide, step], f"{name}_rows", kind)
    product.shape = node.outputs[0].shape
    onnx_ir.convenience.replace_all_uses_with(node.outputs[0], product, replace_graph_outputs=True)
    graph.remove(node, safe=True)
