"""Whether TensorRT can make integer kernels of QuantizeLinear and DequantizeLinear: the rules of its explicit
quantization. Signed, symmetric, activations with one scale, weights with one per output channel, biases in float."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir
from onnx_ir import DataType

from mmedge.core.target import Target
from mmedge.export.check.findings import Finding
from mmedge.export.check.follow import PRODUCTS, behind, users
from mmedge.export.check.opened import STANDARD, Opened, constant, given, is_static, rank
from mmedge.export.check.table import Table

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"

INTEGERS = (DataType.INT8, DataType.INT4, DataType.FLOAT8E4M3FN, DataType.FLOAT4E2M1)
"""What a value may be quantized to: nothing unsigned."""

SENSITIVE = (
    *("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization"),
    *("Softmax", "LogSoftmax", "Gelu", "Erf", "Sigmoid", "Tanh", "Swish", "Mish", "HardSwish"),
)
"""They lose much accuracy to integers, and have no integer kernels to win speed with."""

BETWEEN = ("Add", "Sub", "Mul", "Div", "Cast", "Relu", "Clip", "Pow", "Sqrt", "Concat", *SENSITIVE)
"""A dequantization cannot move past them to the product behind."""

ANY_RANK = (11,)
"""Since this version blocks of int4 may be of tensors of any rank, along the last axis or the one before."""


def check_quantization(opened: Opened, target: Target) -> Iterator[Finding]:
    """The rules that all versions share."""
    for node in opened.nodes:
        if node.domain in STANDARD and node.op_type in (QUANTIZE, DEQUANTIZE):
            yield from _check_zero_point(opened, node)
            yield from _check_scale(opened, node, target)
            yield from (_check_quantize if node.op_type == QUANTIZE else _check_dequantize)(opened, node)
    yield from _check_several_scales(opened)


def check_blocks(opened: Opened, table: Table) -> Iterator[Finding]:
    """Scales per block of a row or column: which weights may have them differs from version to version."""
    nodes = (node for node in opened.nodes if node.domain in STANDARD and node.op_type == DEQUANTIZE)
    for node in nodes:
        if _blocks(node) and (problem := _wrong_blocks(node, table)):
            hint = "quantize with one scale per channel, or keep it in float16"
            yield opened.finding("qdq/blocks", "error", problem, hint, node)


def _check_zero_point(opened: Opened, node: onnx_ir.Node) -> Iterator[Finding]:
    hint = "quantize symmetrically to int8, with zero points of 0"
    zero = given(node, 2)
    kind = zero.dtype if zero is not None else _kind(node)
    if kind == DataType.INT32 and node.op_type == DEQUANTIZE:
        message = f"the int32 value `{_name(node.inputs[0])}` is dequantized, as biases are elsewhere"
        yield opened.finding("qdq/bias", "error", message, "leave biases in float", node)
    elif kind is not None and kind not in INTEGERS:
        message = f"quantized to {kind.name}, only signed types are supported"
        yield opened.finding("qdq/unsigned", "error", message, hint, node)
    elif zero is None:
        return
    elif (tensor := constant(zero)) is None:
        yield opened.finding("qdq/zero-point", "error", f"its zero point `{zero.name}` is computed", hint, node)
    elif np.any(values := tensor.numpy().astype(np.int32)):
        message = f"its zero point is {int(values.flat[np.flatnonzero(values)[0]])}, only 0 is supported"
        yield opened.finding("qdq/zero-point", "error", message, hint, node)


def _kind(node: onnx_ir.Node) -> DataType | None:
    """The type of the integers where there is no zero point to tell it."""
    if node.op_type == DEQUANTIZE:
        return node.inputs[0].dtype if node.inputs[0] is not None else None
    return DataType(node.attributes.get_int("output_dtype", 0) or DataType.UINT8)


def _check_scale(opened: Opened, node: onnx_ir.Node, target: Target) -> Iterator[Finding]:
    scale = given(node, 1)
    tensor = constant(scale)
    if tensor is None:
        hint = "take the scale from calibration data"
        yield opened.finding("qdq/scale", "error", f"its scale `{_name(scale)}` is computed", hint, node)
        return
    values = tensor.numpy().astype(np.float32)
    if wrong := values[~(np.isfinite(values) & (values > 0))].ravel().tolist():
        hint = "widen the range of what is constant in the calibration data"
        message = f"its scale is {wrong[0]:g}, it must be above 0 and finite"
        yield opened.finding("qdq/scale", "error", message, hint, node)
    elif tensor.dtype == DataType.FLOAT16 and values.min() < np.finfo(np.float16).tiny:
        message = f"its smallest scale {values.min():.3g} has lost digits in float16"
        yield opened.finding("qdq/scale", "warning", message, "keep this product in float16", node)
    if target.typed:
        yield from _check_scale_type(opened, node, tensor.dtype)


def _check_scale_type(opened: Opened, node: onnx_ir.Node, kind: DataType) -> Iterator[Finding]:
    """The engine computes in the types that the graph says: the scale's is that of what it does not do in integers."""
    value = node.inputs[0]
    if node.op_type == QUANTIZE and value is not None and value.dtype not in (None, kind):
        message = f"its scale is {kind.name}, `{_name(value)}` is {value.dtype.name}"
        yield opened.finding("qdq/scale-type", "error", message, "give the scale the type of the values", node)
    if node.op_type == DEQUANTIZE and kind == DataType.FLOAT and any(user.op_type in PRODUCTS for user in users(node)):
        message = "its scale is float32, and so is what the product behind gives"
        yield opened.finding("qdq/scale-type", "warning", message, "use float16 scales among float16 values", node)


def _check_quantize(opened: Opened, node: onnx_ir.Node) -> Iterator[Finding]:
    yield from _check_activation(opened, node)
    consumers = node.outputs[0].consumers()
    if not consumers or any(user.op_type != DEQUANTIZE for user in consumers):
        what = f"is read by `{next(iter(consumers)).op_type}`" if consumers else "is an output of the graph"
        hint = "put DequantizeLinear behind it"
        yield opened.finding("qdq/alone", "error", f"what it quantizes {what} as integers", hint, node)


def _check_activation(opened: Opened, node: onnx_ir.Node) -> Iterator[Finding]:
    scale = constant(given(node, 1))
    if scale is not None and scale.size > 1 and constant(node.inputs[0]) is None:
        message = f"`{_name(node.inputs[0])}` is an activation and has {scale.size} scales"
        yield opened.finding("qdq/activation-scales", "error", message, "quantize activations with one scale", node)


def _check_dequantize(opened: Opened, node: onnx_ir.Node) -> Iterator[Finding]:
    if _is_weight(node):
        yield from _check_weight(opened, node)
        return
    before = node.inputs[0].producer()
    if before is None or before.op_type != QUANTIZE:
        yield from _check_activation(opened, node)
    yield from _check_place(opened, node)


def _is_weight(node: onnx_ir.Node) -> bool:
    before = node.inputs[0].producer()
    quantized = before is not None and before.op_type == QUANTIZE and constant(before.inputs[0]) is not None
    return quantized or constant(node.inputs[0]) is not None


def _check_weight(opened: Opened, node: onnx_ir.Node) -> Iterator[Finding]:
    scale = constant(given(node, 1))
    reached = [(use, axis) for use, axis in behind(node) if use.node.op_type in PRODUCTS and use.idx == 1]
    looked_up = any(user.op_type == "Gather" for user in node.outputs[0].consumers())
    if scale is None or _blocks(node) or looked_up:
        return
    if not reached and (between := _product_behind(node)):
        yield _separated(opened, node, between)
    for use, axis in reached:
        if scale.size == 1:
            message = f"the weight of `{use.node.name}` has a single scale"
            yield opened.finding("qdq/weight-scales", "warning", message, "give each output channel a scale", node)
        elif axis is not None and axis != (expected := _channels(use.node, rank(use.node.inputs[1]))):
            message = f"the scales of the weight of `{use.node.name}` are along its axis {axis}, expected {expected}"
            yield opened.finding("qdq/weight-axis", "error", message, "give each output channel a scale", node)


def _channels(product: onnx_ir.Node, dimensions: int | None) -> int:
    """The axis of its weight that the outputs lie along."""
    if product.op_type == "Conv" or (product.op_type == "Gemm" and product.attributes.get_int("transB", 0)):
        return 0
    return (dimensions or 2) - 1 if product.op_type == "MatMul" else 1


def _check_place(opened: Opened, node: onnx_ir.Node) -> Iterator[Finding]:
    """Activations are quantized for the products that read them, and for nothing else."""
    readers = users(node)
    kinds = {user.op_type for user in readers}
    if found := sorted(kinds & set(SENSITIVE)):
        message, hint = f"`{found[0]}` reads quantized values", "quantize only what products and convolutions read"
        yield opened.finding("qdq/sensitive", "warning", message, hint, node)
    if kinds & set(PRODUCTS):
        return
    if between := _product_behind(node):
        yield _separated(opened, node, between)
    elif (made := _made_by_product(node)) is not None:
        message = f"the output of `{made.name}` is quantized, and no product reads it"
        yield opened.finding("qdq/output", "warning", message, "quantize inputs of products, not their outputs", node)


def _separated(opened: Opened, node: onnx_ir.Node, between: onnx_ir.Node) -> Finding:
    message = f"`{between.op_type}` stands between it and the product behind, which so stays in float"
    return opened.finding("qdq/separated", "warning", message, f"quantize after `{between.name}`", node)


def _product_behind(node: onnx_ir.Node) -> onnx_ir.Node | None:
    """What keeps the dequantized values from the product that reads them one step later."""
    for user in users(node):
        if user.op_type in BETWEEN and any(after.op_type in PRODUCTS for after in users(user)):
            return user
    return None


def _made_by_product(node: onnx_ir.Node) -> onnx_ir.Node | None:
    quantize = node.inputs[0].producer()
    value = quantize.inputs[0] if quantize is not None and quantize.op_type == QUANTIZE else None
    for _ in range(3):  # the product itself, or a bias and an activation behind it
        before = value.producer() if value is not None else None
        if before is None:
            return None
        if before.op_type in PRODUCTS:
            return before if _is_quantized(before) else None
        if before.op_type not in ("Add", "Relu", "Clip"):
            return None
        value = next((each for each in before.inputs if constant(each) is None), None)
    return None


def _is_quantized(product: onnx_ir.Node) -> bool:
    return any(
        value is not None and (before := value.producer()) is not None and before.op_type == DEQUANTIZE
        for value in product.inputs[:2]
    )


def _check_several_scales(opened: Opened) -> Iterator[Finding]:
    scales: dict[onnx_ir.Value, set[bytes]] = {}
    for node in opened.nodes:
        if node.op_type == QUANTIZE and node.inputs[0] is not None and (scale := constant(given(node, 1))) is not None:
            known = scales.setdefault(node.inputs[0], set())
            known.add(scale.tobytes())
            if len(known) == 2:
                message = f"`{_name(node.inputs[0])}` is quantized with several scales"
                hint = "let all products that read it share one QuantizeLinear"
                yield opened.finding("qdq/several-scales", "warning", message, hint, node)


def _blocks(node: onnx_ir.Node) -> bool:
    scale = given(node, 1)
    return bool(node.attributes.get_int("block_size", 0)) or (rank(scale) or 0) > 1


def _wrong_blocks(node: onnx_ir.Node, table: Table) -> str | None:
    value, scale = node.inputs[0], node.inputs[1]
    if constant(value) is None:
        return f"`{_name(value)}` is no constant and has scales per block"
    if table.number < ANY_RANK and (rank(value) != 2 or rank(scale) != 2):
        return f"scales per block of a weight of {rank(value)} dimensions, only 2 are supported"
    axis = node.attributes.get_int("axis", 1) % (rank(value) or 1)
    if axis < (rank(value) or 0) - 2:
        return f"blocks along axis {axis} of {rank(value)}, only the last two are supported"
    if is_static(value) and is_static(scale) and value.shape[axis] % scale.shape[axis]:
        return f"{value.shape[axis]} rows cannot be split into {scale.shape[axis]} equal blocks"
    return None


def _name(value: onnx_ir.Value | None) -> str:
    return str(value.name) if value is not None else ""
