"""The remarks in the operator tables, as checks: each sentence is one function, wherever and for whichever versions it
is written in the data."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import onnx_ir

from mmedge.export.check.opened import constant, given, is_fixed, is_static, number, rank
from mmedge.export.check.remark_kinds import (
    Remark,
    fixed,
    initializer,
    listed,
    no_attribute,
    no_inputs,
    only_outputs,
    ranks,
    zero_attribute,
)
from mmedge.export.check.table import Table

LARGEST_K = 3840


def broken_remarks(node: onnx_ir.Node, table: Table) -> Iterator[str]:
    """What is wrong with the node, and the sentence that it does not keep."""
    row = table.operators.get(node.op_type)
    for sentence in sentences(row.restrictions) if row else ():
        remark = REMARKS.get(sentence) or _by_beginning(sentence)
        if remark and (wrong := remark(node, sentence)):
            yield f"`{node.op_type}`: {wrong} ({sentence})"


def sentences(restrictions: str) -> list[str]:
    """A row's remarks apart, without their full stops."""
    parts = re.split(r"\.\s+|<br />", restrictions)
    return [part.strip().rstrip(".") for part in parts if part.strip()]


def _by_beginning(sentence: str) -> Remark | None:
    return next((remark for beginning, remark in BEGINNINGS.items() if sentence.startswith(beginning)), None)


def _axes(node: onnx_ir.Node) -> onnx_ir.Value | None:
    return given(node, 3 if node.op_type == "Pad" else 1)


def _pooled_rank(node: onnx_ir.Node, _: str) -> str | None:
    dimensions = rank(node.inputs[0])
    return f"pools over {dimensions - 2} dimensions" if dimensions not in (None, 4, 5) else None


def _no_dilations(node: onnx_ir.Node, _: str) -> str | None:
    dilations = node.attributes.get_ints("dilations", [])
    return f"dilations {list(dilations)}" if any(size != 1 for size in dilations) else None


def _constant_values(node: onnx_ir.Node, _: str) -> str | None:
    found = [name for name in ("sparse_value", "value_string", "value_strings") if name in node.attributes]
    return f"attribute `{found[0]}`" if found else None


def _axes_initializer(node: onnx_ir.Node, _: str) -> str | None:
    axes = _axes(node)
    return "`axes` is computed" if axes is not None and constant(axes) is None else None


def _axes_fixed(node: onnx_ir.Node, _: str) -> str | None:
    axes = _axes(node)
    return "`axes` is computed from inputs" if axes is not None and not is_fixed(axes) else None


def _spatial_2d(node: onnx_ir.Node, _: str) -> str | None:
    dimensions = rank(node.inputs[0])
    return f"{dimensions - 2} spatial dimensions" if dimensions not in (None, 3, 4) else None


def _even_pads(node: onnx_ir.Node, _: str) -> str | None:
    pads = list(node.attributes.get_ints("pads", []))
    half = len(pads) // 2
    return f"pads {pads}" if pads[:half] != pads[half:] else None


def _not_training(node: onnx_ir.Node, _: str) -> str | None:
    mode = given(node, 2)
    return None if mode is None or number(mode) == 0 else "its training mode is on, or computed"


def _static_input(node: onnx_ir.Node, _: str) -> str | None:
    return None if is_static(node.inputs[0]) else "the shape of its input varies"


def _one_activation(node: onnx_ir.Node, _: str) -> str | None:
    if node.attributes.get_string("direction", "forward") != "bidirectional":
        return None
    names = list(node.attributes.get_strings("activations", []))
    half = len(names) // 2
    return f"activations {', '.join(names)}" if names[:half] != names[half:] else None


def _image(node: onnx_ir.Node, _: str) -> str | None:
    return f"an input of {rank(node.inputs[0])} dimensions" if rank(node.inputs[0]) not in (None, 4) else None


def _static_axis(node: onnx_ir.Node, _: str) -> str | None:
    shape, axis = node.inputs[0].shape, node.attributes.get_int("axis", -1)
    return None if shape is None or isinstance(shape[axis], int) else f"the size of its axis {axis} varies"


def _branches(node: onnx_ir.Node, _: str) -> str | None:
    one, other = (node.attributes[name].as_graph().outputs for name in ("then_branch", "else_branch"))
    for first, second in zip(one, other, strict=False):
        if first.name == second.name:
            return f"both branches name an output `{first.name}`"
        if None not in (rank(first), rank(second)) and rank(first) != rank(second):
            return f"`{first.name}` has {rank(first)} dimensions, `{second.name}` {rank(second)}"
    return None


def _fixed_trips(node: onnx_ir.Node, _: str) -> str | None:
    carried = len(node.inputs) - 2
    scans = len(node.outputs) > carried
    return "it gathers outputs of a number of rounds that varies" if scans and not _counted(node) else None


def _counted(node: onnx_ir.Node) -> bool:
    return node.inputs[0] is not None and is_fixed(node.inputs[0])


def _carried_shapes(node: onnx_ir.Node, _: str) -> str | None:
    body = node.attributes["body"].as_graph()
    for before, after in zip(node.inputs[2:], body.outputs[1:], strict=False):
        shapes = [value.shape for value in (before, after) if value is not None]
        if len(shapes) == 2 and None not in shapes and list(shapes[0]) != list(shapes[1]):
            return f"`{after.name}` is {shapes[1]} after a round and {shapes[0]} before"
    return None


def _nearest(node: onnx_ir.Node, sentence: str) -> str | None:
    if node.attributes.get_string("mode", "nearest") != "nearest":
        return None
    return listed("nearest_mode", "round_prefer_floor")(node, sentence)


def _resize_axes(node: onnx_ir.Node, _: str) -> str | None:
    axes, dimensions = node.attributes.get_ints("axes", None), rank(node.inputs[0])
    if axes is None or (scales := given(node, 2)) is None or constant(scales) is not None:
        return None
    return f"computed scales with the axes {list(axes)}" if list(axes) != list(range(dimensions or 0)) else None


def _real(node: onnx_ir.Node, _: str) -> str | None:
    shape = node.inputs[0].shape
    return "a complex input" if shape is not None and len(shape) == 3 and shape[-1] == 2 else None


def _frames(node: onnx_ir.Node, sentence: str) -> str | None:
    return initializer(1, "frame_step")(node, sentence) or initializer(2, "window")(node, sentence)


def _no_reduction(node: onnx_ir.Node, _: str) -> str | None:
    value = node.attributes.get_string("reduction", "none")
    return f"reduction `{value}`" if value != "none" else None


def _small_k(node: onnx_ir.Node, _: str) -> str | None:
    if (value := constant(given(node, 1))) is None:
        return None
    count = int(np.max(value.numpy()))
    return f"K is {count}" if count >= LARGEST_K else None


def _sorted(node: onnx_ir.Node, _: str) -> str | None:
    return "sorted 0" if node.attributes.get_int("sorted", 1) != 1 else None


def _plain_scores(node: onnx_ir.Node, _: str) -> str | None:
    cap, mode = node.attributes.get_float("softcap", 0.0), node.attributes.get_int("qk_matmul_output_mode", 0)
    return f"softcap {cap:g}" if cap else f"qk_matmul_output_mode {mode}" if mode else None


def _long_positions(node: onnx_ir.Node, _: str) -> str | None:
    value = given(node, 3)
    kind = value.dtype if value is not None else None
    return f"its positions are {kind.name}" if kind is not None and kind != onnx_ir.DataType.INT64 else None


def _rows_axis(node: onnx_ir.Node, _: str) -> str | None:
    axis = node.attributes.get_int("axis", -2)
    return f"axis {axis}" if axis not in (-2, 2) else None


REMARKS: dict[str, Remark | None] = {
    "2D or 3D Pooling only": _pooled_rank,
    "2D or 3D pooling only": _pooled_rank,
    "`dilations` must be empty or all ones": _no_dilations,
    "`sparse_value`, `value_string`, and `value_strings` attributes are unsupported": _constant_values,
    "`axis` must be an initializer": initializer(1, "axis"),
    "`axis` must be a build-time constant": fixed(1, "axis"),
    "`input` must have 1D or 2D spatial dimensions": _spatial_2d,
    "`pads` for the beginning and end along each spatial axis must be the same": _even_pads,
    "`is_traning` must be an initializer and evaluate to False": _not_training,
    "`is_training` must be an initializer and evaluate to False": _not_training,
    "`input` must have static dimensions": _static_input,
    "Input must be 4D input": _image,
    "`axis` dimension of input must be a build-time constant": _static_axis,
    "Output tensors of the two conditional branches must have the same rank and must have different names": _branches,
    "`input_forget` attribute must be 0": zero_attribute("input_forget"),
    "`layout` attribute must be 0": zero_attribute("layout"),
    "Only the first output `Y` is supported": only_outputs(1),
    "Scan output length cannot be dynamic": _fixed_trips,
    "The shape of Loop carried dependencies must be the same across all loop iterations": _carried_shapes,
    "`Indices` output tensor unsupported": only_outputs(1),
    "`depth` must be a build-time constant": fixed(1, "depth"),
    "`axes` must be an initializer": _axes_initializer,
    "`axes` must be a constant tensor": _axes_initializer,
    "`axes` must be resolvable to a constant": _axes_fixed,
    "When `scales` is a tensor input, `axes` must be an iota vector of length rank(input)": _resize_axes,
    "Antialiasing is not supported": zero_attribute("antialias"),
    "`frame_step` and `window` must be an initializer": _frames,
    "Input must be real-valued": _real,
    "`reduction` is not supported": no_attribute("reduction"),
    "`reduction` other than `none` is not supported": _no_reduction,
    "`sorted` must be 1": _sorted,
    "`K` input must be less than 3840": _small_k,
    "`Q`, `K`, `V` and `attn_mask ` must be 4D": ranks(Q=0, K=1, V=2, attn_mask=3),
    "`past_key`, `past_value` and `nonpad_kv_seqlen` inputs are unsupported": no_inputs(
        past_key=4, past_value=5, nonpad_kv_seqlen=6
    ),
    "`present_key`, `present_value` and `qk_matmul_output` outputs are unsupported": only_outputs(1),
    "`qk_matmul_output_mode` and `softcap` attributes are unsupported": _plain_scores,
    "`position_ids` must be INT64": _long_positions,
    "`past_cache` and `update` must be 4D": ranks(past_cache=0, update=1),
    "`axis` must be -2": _rows_axis,
    # Checked with the other rules of quantization.
    "`x_zero_point` must be zero": None,
    "`y_zero_point` must be 0": None,
    # Nothing that could be wrong.
    "`seed` value is ignored by TensorRT": None,
}
"""Whole sentences."""

BEGINNINGS: dict[str, Remark | None] = {
    "Supported resize transformation modes": listed("coordinate_transformation_mode", "half_pixel"),
    "Supported resize modes": listed("mode", "nearest"),
    "Supported nearest modes": _nearest,
    "Supported aspect ratio policy": listed("keep_aspect_ratio_policy", "stretch"),
    "For bidirectional": _one_activation,
    # It says what the heads are taken from: the ranks, which the first remark is about.
    "`q_num_heads` and `kv_num_heads` attributes are supported via": None,
}
"""Sentences that carry a list or a name."""
