"""Whether a version of TensorRT reads each operator: its domain, its name, the opset, the types, and the remarks of the
table."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir

from mmedge.core.plan import INT4_OPSET
from mmedge.core.target import Target
from mmedge.export.check.findings import Finding
from mmedge.export.check.opened import STANDARD, Opened, sources
from mmedge.export.check.remarks import broken_remarks
from mmedge.export.check.table import CHANGES, Table

PLUGINS = "trt.plugins"
"""The domain of plugins, TensorRT's own among them, whose names begin with `OWN`."""
OWN = "TRT_"

KINDS = {
    "FLOAT": "FP32",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "FLOAT8E4M3FN": "FP8",
    "FLOAT4E2M1": "FP4",
    **{name: name for name in ("INT4", "INT8", "INT32", "INT64", "UINT8", "BOOL")},
}
"""Types of ONNX by the name that the tables have for them; TensorRT has no others."""

PRECISIONS = {"BFLOAT16": "bfloat16", "FLOAT8E4M3FN": "float8", "FLOAT4E2M1": "float4"}
"""Types that only some GPUs compute with, by the precision that a target must list."""

DATA = {
    "BlackmanWindow": ("T2",),
    "Cast": ("T1", "T2"),
    "ConstantOfShape": ("T2",),
    "EyeLike": ("T2",),
    "HammingWindow": ("T2",),
    "HannWindow": ("T2",),
    "If": ("V",),
    "Loop": ("V",),
    "OneHot": ("T3",),
    "RotaryEmbedding": ("T",),
    "Where": ("B", "T"),
}
"""The type variables that the types in the table are about, where it is not the one of the first input alone."""

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
"""Their types have rules of their own (`qdq`)."""

SIZE_INPUTS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 4),
    "Tile": (1,),
    "TopK": (1,),
    "Upsample": (1,),
}
"""Inputs whose values decide the size of the output."""

DATA_DEPENDENT = ("Compress", "If", "Loop", "NonMaxSuppression", "NonZero", "Scan", "Unique")


def check_operators(opened: Opened, table: Table) -> Iterator[Finding]:
    """What one version of TensorRT cannot read."""
    yield from _check_opset(opened, table)
    for node in opened.nodes:
        if problem := _unreadable(opened, node, table):
            yield problem
            continue
        yield from _check_types(opened, node, table)
        if node.op_type == "Attention" and node.inputs[0].dtype == onnx_ir.DataType.FLOAT:
            message = "`Attention` in float32: a later TensorRT found no kernel for it"
            hint = "compute it in float16, or spell it with MatMul and Softmax"
            yield opened.finding("operators/attention", "warning", message, hint, node)
        for wrong in broken_remarks(node, table):
            hint = "spell it another way, or compute it outside of the graph"
            yield opened.finding("operators/restriction", "error", wrong, hint, node)


def check_values(opened: Opened, target: Target) -> Iterator[Finding]:
    """What no version of TensorRT does well, or no GPU of the target can compute with."""
    yield from _check_ports(opened)
    yield from _check_precisions(opened, target)
    for node in opened.nodes:
        if node.domain in STANDARD and node.op_type in DATA_DEPENDENT:
            message = f"what `{node.op_type}` does depends on values: slow, and a run of it cannot be recorded"
            yield opened.finding("operators/data-dependent", "warning", message, "compute it another way", node)
        for index in SIZE_INPUTS.get(node.op_type, ()):
            if index < len(node.inputs) and (value := node.inputs[index]) is not None:
                yield from _check_size(opened, node, value)


def _check_opset(opened: Opened, table: Table) -> Iterator[Finding]:
    lowest, highest = table.oldest_opset, table.newest_opset
    if lowest <= opened.opset <= highest:
        return
    message = f"operator set {opened.opset}, TensorRT {table.version} reads {lowest} to {highest}"
    if opened.opset == INT4_OPSET and _has_int4(opened) and "INT4" in table.operators["DequantizeLinear"].types:
        message += f"; it lists INT4 though, which begins with {INT4_OPSET}"
        hint = "compare with another precision on the device before you rely on it"
        yield opened.finding("operators/opset", "warning", message, hint)
    else:
        yield opened.finding("operators/opset", "error", message, f"export with operator set {min(highest, 20)}")


def _has_int4(opened: Opened) -> bool:
    values = (value for node in opened.nodes for value in node.inputs if value is not None)
    return any(value.dtype == onnx_ir.DataType.INT4 for value in values)


def _unreadable(opened: Opened, node: onnx_ir.Node, table: Table) -> Finding | None:
    kind = node.op_type
    if kind in table.plugins:
        return None
    if node.domain == PLUGINS and not kind.startswith(OWN):
        message = f"`{kind}` is a plugin, which the device may not have"
        return opened.finding(
            "operators/plugin", "warning", message, "install it there before the engine is built", node
        )
    if node.domain not in (*STANDARD, PLUGINS):
        meets = "reads it as the ONNX operator of the same name" if table.reads(kind) else "looks for a plugin"
        message = f"`{node.domain}::{kind}`: TensorRT ignores the domain and {meets}"
        return opened.finding("operators/domain", "error", message, "spell it in operators of ONNX itself", node)
    if not table.reads(kind):
        message = f"the operator `{kind}` is not supported"
        return opened.finding("operators/unsupported", "error", message, _advice(kind), node)
    since = CHANGES.get((kind, _schema_version(opened, kind)))
    if since and table.number < since:
        message = f"`{kind}` of operator set {opened.opset} is read by TensorRT {'.'.join(map(str, since))} and later"
        return opened.finding("operators/unsupported", "error", message, "export with operator set 20", node)
    return None


def _advice(kind: str) -> str:
    if kind.startswith("QLinear") or kind.endswith("Integer") or kind == "DynamicQuantizeLinear":
        return "quantize with QuantizeLinear and DequantizeLinear around float operators"
    if kind.startswith(("Sequence", "Optional", "String")):
        return "pass tensors only"
    return "decompose it into operators of opset 20 or lower"


def _check_types(opened: Opened, node: onnx_ir.Node, table: Table) -> Iterator[Finding]:
    allowed = table.operators[node.op_type].types if node.op_type in table.operators else ()
    if not allowed or node.op_type in QUANTIZERS:
        return
    for value in _data_values(opened, node):
        if value.dtype is not None and KINDS.get(value.dtype.name) not in allowed:
            message = f"`{node.op_type}` of {value.dtype.name} (`{value.name}`), supported are {', '.join(allowed)}"
            hint = f"cast to {'INT32' if 'INT32' in allowed else allowed[0]} before it"
            yield opened.finding("operators/type", "error", message, hint, node)
            return


def _data_values(opened: Opened, node: onnx_ir.Node) -> Iterator[onnx_ir.Value]:
    """The inputs and outputs whose types the table is about."""
    if not _known(opened, node.op_type):
        return
    schema = onnx.defs.get_schema(node.op_type, opened.opset)
    first = schema.inputs[0].type_str if schema.inputs else schema.outputs[0].type_str
    wanted = DATA.get(node.op_type, (first,))
    for formals, values in ((schema.inputs, node.inputs), (schema.outputs, node.outputs)):
        for index, value in enumerate(values):
            formal = formals[min(index, len(formals) - 1)]  # the last may stand for many
            if value is not None and formal.type_str in wanted:
                yield value


def _known(opened: Opened, kind: str) -> bool:
    """Some rows of the tables are of operators that ONNX has dropped."""
    return onnx.defs.has(kind, opened.opset, "")


def _schema_version(opened: Opened, kind: str) -> int:
    return onnx.defs.get_schema(kind, opened.opset).since_version if _known(opened, kind) else 0


def _check_ports(opened: Opened) -> Iterator[Finding]:
    for what, values in (("input", opened.proto.graph.input), ("output", opened.proto.graph.output)):
        for value in values:
            kind = value.type.WhichOneof("value")
            name = onnx_ir.DataType(value.type.tensor_type.elem_type).name if kind == "tensor_type" else ""
            if name not in KINDS:
                message = f"{what} `{value.name}` is {name or (kind or 'nothing').removesuffix('_type')}"
                hint = "use float32, float16, int64, int32, bool or uint8 tensors"
                yield opened.finding("operators/port", "error", message + ", which TensorRT has not", hint)


def _check_precisions(opened: Opened, target: Target) -> Iterator[Finding]:
    """The first use of each type that the target's GPU does not compute with."""
    seen: set[str] = set()
    for node in opened.nodes:
        for value in (*node.inputs, *node.outputs):
            name = value.dtype.name if value is not None and value.dtype is not None else ""
            if name in PRECISIONS and PRECISIONS[name] not in target.precisions and name not in seen:
                seen.add(name)
                message = f"`{value.name}` is {name}, `{target.name}` computes in {', '.join(target.precisions)}"
                yield opened.finding("operators/precision", "error", message, "use float16 or float32", node)


def _check_size(opened: Opened, node: onnx_ir.Node, value: onnx_ir.Value) -> Iterator[Finding]:
    for source in sources(value):
        if source.graph is not opened.program.graph:  # what a Loop hands to its body
            continue
        message = f"the values of the input `{source.name}` become sizes in `{node.op_type}`"
        hint = "compute sizes from the shapes of inputs, or pass a mask instead"
        yield opened.finding("operators/sizes-from-values", "error", message, hint, node)
        return
