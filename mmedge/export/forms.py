"""Decoder graphs in the form of one engine alone, beside the plain one that every engine reads.

ONNX Runtime has an attention of its own (GroupQueryAttention) that rotates, adds to a cache in place and attends in one
operator; with the token chosen in the graph a step of SmolVLM is 400 nodes instead of 1,100. It is traced from the same
family code as the plain graph, with another cache, rather than found in the plain graph by patterns: a pattern that no
longer matches would be silently slow, and one that matches too much silently wrong. It can only be causal, so it is
made for decoders that are declared causal alone, and is compared with torch as the plain graph is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import onnx_ir
import torch
from onnx_ir.external_data import convert_tensors_to_external
from onnxscript.optimizer import fold_constants

from mmedge.core.bundle import Form, Graph
from mmedge.core.family import Component
from mmedge.core.plan import Plan
from mmedge.core.ports import Port
from mmedge.export.decoder import TOKEN, choose_token
from mmedge.export.spelling import UNLIMITED
from mmedge.export.tidy import tidy, write
from mmedge.export.trace import trace

ENGINE = "onnxruntime"
HEAD_MULTIPLE = 16
"""GroupQueryAttention rotates heads of such sizes only."""


def has_form(component: Component, plan: Plan) -> bool:
    """Whether the component gets one."""
    cache = component.cache
    return (
        cache is not None
        and component.causal
        and not cache.capacity
        and cache.head_dim % HEAD_MULTIPLE == 0
        and not plan.target.typed
        and plan.choices[component.name].precision != "float16"
    )


def trace_form(component: Component, model: torch.nn.Module, path: Path, opset: int) -> None:
    """Write the component's form to ``path``."""
    program = trace(_shared(component), model, opset)
    fold_constants(program, input_size_limit=UNLIMITED, output_size_limit=UNLIMITED)
    choose_token(program.graph)
    program.graph.opset_imports["com.microsoft"] = 1
    write(tidy(program), path)


def with_form(graph: Graph, component: Component) -> Graph:
    """The manifest's entry of a graph that has one."""
    shared = _shared(component)
    token = msgspec.structs.replace(TOKEN, shape=shared.outputs[0].shape[:2])
    assert shared.cache is not None
    file = f"graphs/{component.name}.{ENGINE}.onnx"
    form = Form(file, shared.inputs, (token, *shared.outputs), shared.cache)
    return msgspec.structs.replace(graph, forms={ENGINE: form})


def share_weights(form: Path, plain: Path) -> None:
    """Let ``form`` read the weights that it has in common with ``plain`` from the file beside that."""
    known = dict(_weights(onnx_ir.load(plain)))
    program = onnx_ir.load(form)
    own: list[onnx_ir.Value] = []
    for value in program.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, onnx_ir.ExternalTensor):
            continue
        if (same := known.get(_digest(tensor))) is None:
            value.const_value = onnx_ir.tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=value.name)
            own.append(value)
            continue
        value.const_value = onnx_ir.ExternalTensor(
            same.location,
            same.offset,
            same.length,
            same.dtype,
            shape=same.shape,
            name=str(value.name),
            base_dir=same.base_dir,
        )
    data = form.with_name(f"{form.name}.data")
    data.unlink(missing_ok=True)
    if own:
        kept = [value.const_value for value in own if value.const_value is not None]
        for value, tensor in zip(own, convert_tensors_to_external(kept, form.parent, data.name), strict=True):
            value.const_value = tensor
    onnx_ir.save(program, form)


def _shared(component: Component) -> Component:
    """With its cache shared, for several answers at once."""
    assert component.cache is not None
    return replace(
        component,
        cache=msgspec.structs.replace(component.cache, shared=True),
        inputs=tuple(_of_several(port) for port in component.inputs),
        outputs=tuple(_of_several(port) for port in component.outputs),
    )


def _of_several(port: Port) -> Port:
    """For one answer the first axis is 1, or of positions with several axes the one before the last."""
    axis = len(port.shape) - 2 if port.name == "position_ids" else 0
    if len(port.shape) < 2 or port.shape[axis] != 1:
        return port
    return msgspec.structs.replace(port, shape=(*port.shape[:axis], "batch", *port.shape[axis + 1 :]))


def _weights(program: onnx_ir.Model) -> Iterator[tuple[bytes, onnx_ir.ExternalTensor]]:
    for value in program.graph.initializers.values():
        if isinstance(value.const_value, onnx_ir.ExternalTensor):
            yield _digest(value.const_value), value.const_value


def _digest(tensor: onnx_ir.ExternalTensor) -> bytes:
    """Of what it holds, in what type and shape."""
    kind = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return hashlib.sha256(kind + tensor.tobytes()).digest()
