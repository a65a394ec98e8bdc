"""Weights alone in 8 or 4 bits, with a scale for each block of inputs.

Two spellings with the same numbers, both kept compressed by OpenVINO 2026.4 (checked in its executed graphs):

- ``blocks``, standard ``DequantizeLinear -> MatMul``. ONNX Runtime 1.31 fuses it to MatMulNBits when it opens the
  graph; 1.23 does so with 4 bits only, and with 8 is half as fast as float32 (it dequantizes all weights every time).
- ``nbits``, ONNX Runtime's own MatMulNBits: 2.6 times as fast as float32 with 1.23 and 2.5 with 1.31, opened sooner and
  in less memory. OpenVINO takes 100-230 MB more for a decoder of 137 M parameters.

nncf is not used: its int8 weights have one scale per channel, which ONNX Runtime does not fuse (0.2 times the speed of
float32), and its int4 embeddings are refused by ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes
import numpy as np
import onnx_ir

from mmedge.export.spelling import constant, initializer, insert, replace, spell_as_matmul, weight

BLOCK_SIZES = {8: (128, 64, 32, 16), 4: (64, 32, 16)}
"""Weights that share a scale, by bits, the preferred number first; MatMulNBits takes no less than 16. With 128 instead
of 64 its products of 8 bits take 5 % less for one token and 9 % less for 117 (the layers of SmolVLM-256M); the steps of
4 bits are coarse enough."""

INTEGER_PRODUCTS = 4
"""Accuracy level of MatMulNBits: activations to int8 in blocks too, as where ONNX Runtime fuses the other spelling."""

SMALLEST_TABLE = 1 << 20
"""Bytes of a float embedding table that is worth an extra Cast and Mul."""


class Blocks(NamedTuple):
    """A matrix ``[inputs, outputs]`` in blocks of ``size`` inputs, as ONNX Runtime's kernel makes them."""

    packed: np.ndarray
    """uint8 ``[outputs, blocks, bytes]``: values plus half their range; of 4 bits two in a byte, the low half first."""
    scales: np.ndarray
    """float32 ``[outputs, blocks]``"""
    bits: int
    size: int

    def values(self) -> np.ndarray:
        """int8 or int4 ``[inputs, outputs]``."""
        codes = self.packed if self.bits == 8 else np.stack([self.packed & 15, self.packed >> 4], axis=-1)
        signed = (codes.reshape(len(codes), -1).T.astype(np.int16) - (1 << self.bits - 1)).astype(np.int8)
        return np.ascontiguousarray(signed if self.bits == 8 else signed.astype(ml_dtypes.int4))


def quantize_weights(
    program: onnx_ir.Model, kept: set[str], bits: int, spelling: str, *, products_only: bool = False
) -> tuple[onnx_ir.Model, tuple[str, ...]]:
    """``program`` with the weights of its matrix products in ``bits``, and its large embedding tables in 8 bits.

    The product that makes the logits has 8 bits in any case. With ``products_only`` it and the tables stay as they are.
    """
    graph = program.graph
    nodes = [node for node in graph if node.name not in kept]
    if products_only:
        nodes = [node for node in nodes if not (_makes_logits(node) or _is_large_lookup(node))]
    products = spell_as_matmul(graph, [node for node in nodes if weight(node) is not None and node.op_type != "Conv"])
    warnings = []
    for node in products:
        inputs = node.inputs[1].shape[0]
        own_bits = 8 if _makes_logits(node) else bits
        size = next((size for size in BLOCK_SIZES[own_bits] if inputs % size == 0), None)
        if size is None:
            least = BLOCK_SIZES[own_bits][-1]
            warnings.append(f"`{node.name}` stays in float32: its {inputs} inputs are no multiple of {least}")
        else:
            matrix = node.inputs[1].const_value.numpy()
            make = positive_blocks if products_only else quantize_blocks
            SPELLINGS[spelling](graph, node, make(matrix, own_bits, size))
    for node in nodes:
        if _is_large_lookup(node):
            _quantize_lookup(graph, node)
    return program, tuple(warnings)


def quantize_blocks(matrix: np.ndarray, bits: int, size: int) -> Blocks:
    """A float32 matrix to the nearest symmetric values."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=size, is_symmetric=True, bits=bits)
    packed, scales, _ = DefaultWeightOnlyQuantizer(config).qbits_block_quant(np.ascontiguousarray(matrix))
    return Blocks(packed, scales.reshape(len(packed), -1), bits, size)


def positive_blocks(matrix: np.ndarray, bits: int, size: int) -> Blocks:
    """The same with scales above 0, as TensorRT wants them: ONNX Runtime's quantizer writes a negative scale where the
    largest value of a block is positive, to use the one code more that there is below zero."""
    most = (1 << bits - 1) - 1
    blocks = np.ascontiguousarray(matrix.T, np.float32).reshape(matrix.shape[1], -1, size)
    scales = np.maximum(np.abs(blocks).max(axis=-1) / most, np.finfo(np.float16).tiny)
    codes = np.rint(blocks / scales[..., None]).astype(np.int16) + most + 1
    flat = codes.reshape(len(codes), -1).astype(np.uint8)
    packed = flat if bits == 8 else flat[:, ::2] | flat[:, 1::2] << 4
    return Blocks(packed.reshape(*scales.shape, -1), scales.astype(np.float32), bits, size)


def _spell_as_blocks(graph: onnx_ir.Graph, node: onnx_ir.Node, blocks: Blocks) -> None:
    name, kind = f"{node.name}_weight", node.inputs[1].dtype
    parts = [
        initializer(graph, onnx_ir.tensor(blocks.values(), name=f"{name}_int{blocks.bits}")),
        initializer(graph, onnx_ir.tensor(np.ascontiguousarray(blocks.scales.T), name=f"{name}_scale")),
    ]
    attributes = {"axis": 0, "block_size": blocks.size}
    node.replace_input_with(1, insert(graph, node, "DequantizeLinear", parts, name, kind, attributes))


def _spell_as_nbits(graph: onnx_ir.Graph, node: onnx_ir.Node, blocks: Blocks) -> None:
    source, matrix = node.inputs
    inputs = [
        source,
        initializer(graph, onnx_ir.tensor(blocks.packed, name=f"{node.name}_weight_uint{blocks.bits}")),
        initializer(graph, onnx_ir.tensor(blocks.scales, name=f"{node.name}_weight_scale")),
    ]
    attributes = {
        "K": matrix.shape[0],
        "N": matrix.shape[1],
        "bits": blocks.bits,
        "block_size": blocks.size,
        "accuracy_level": INTEGER_PRODUCTS,
    }
    product = insert(graph, node, "MatMulNBits", inputs, f"{node.name}_product", matrix.dtype, attributes)
    product.producer().domain = "com.microsoft"
    graph.opset_imports["com.microsoft"] = 1
    replace(graph, node, product)


SPELLINGS: dict[str, Callable[[onnx_ir.Graph, onnx_ir.Node, Blocks], None]] = {
    "blocks": _spell_as_blocks,
    "nbits": _spell_as_nbits,
}


def _makes_logits(node: onnx_ir.Node) -> bool:
    """Whether a graph output is this product or a part of it, with its bias at most."""
    output = node.outputs[0]
    if output.is_graph_output():
        return True
    return any(use.node.op_type in ("Add", "Concat") and _makes_logits(use.node) for use in output.uses())


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
    replace(graph, node, product)
