"""A graph as the checks see it: functions inlined, types and shapes inferred, constants read only where asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnx_ir
from google.protobuf.message import DecodeError

from mmedge.core.manifest import Graph
from mmedge.core.ports import Port
from mmedge.errors import BundleError
from mmedge.export.check.findings import Finding, Severity
from mmedge.export.check.modules import module_near

STANDARD = ("", "ai.onnx")
"""Both are names of the operators of ONNX itself."""

QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
"""ONNX Runtime's own are of the same shapes as those of ONNX."""

INTEGERS = {onnx.TensorProto.INT32: 4, onnx.TensorProto.INT64: 8}
"""Bytes of one, by type."""

INDEX_OPERATORS = ("Shape", "Size")
"""What they give depends on sizes alone, never on values."""


@dataclass(frozen=True)
class Opened:
    """One graph of a bundle or of a draft; its large constants stay on disk until they are looked at."""

    graph: Graph
    path: Path
    proto: onnx.ModelProto
    """As it lies on disk, of the external data only the integers, which sizes are computed from."""
    problem: str
    """Why types and shapes cannot be inferred; "" if they can."""
    program: onnx_ir.Model
    files: tuple[Path, ...]
    """The graph and those beside it that hold its constants."""

    @property
    def component(self) -> str:
        return self.graph.component

    @cached_property
    def nodes(self) -> tuple[onnx_ir.Node, ...]:
        """All of them, those inside If, Loop and Scan too."""
        return tuple(onnx_ir.traversal.RecursiveGraphIterator(self.program.graph))

    @cached_property
    def opset(self) -> int:
        known = self.program.opset_imports
        return max((known[name] for name in STANDARD if name in known), default=1)

    @cached_property
    def ports(self) -> tuple[Port, ...]:
        """Every input that the manifest promises, with those of the cache."""
        cache = self.graph.cache
        return (*self.graph.inputs, *(cache.past() + cache.steering() if cache else ()))

    def finding(
        self, check: str, severity: Severity, message: str, hint: str, node: onnx_ir.Node | None = None
    ) -> Finding:
        where = {"node": node.name or node.op_type, "module": module_near(node)} if node is not None else {}
        return Finding(check, severity, self.component, message, hint, **where)

    def sized(self, sizes: Mapping[str, int], strict: bool = False) -> dict[str, tuple[int, np.dtype]]:
        """Elements and dtype of every tensor whose shape is known once the words in the inputs' shapes are numbers.

        Raises:
            onnx.shape_inference.InferenceError: if ``strict``, where the sizes do not fit together.
        """
        inferred = self._inferred(sizes, strict)
        return {value.name: size for value in (*inferred.value_info, *inferred.output) if (size := _size(value))}

    def shaped(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The shapes of the same tensors, and of the inputs."""
        inferred = self._inferred(sizes)
        known = filter(_size, (*inferred.input, *inferred.value_info, *inferred.output))
        return {value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in known}

    def _inferred(self, sizes: Mapping[str, int], strict: bool = False) -> onnx.GraphProto:
        if self.problem:
            return onnx.GraphProto()
        model = onnx.ModelProto()
        model.CopyFrom(_inlined(self.proto))
        for node in model.graph.node:
            if node.op_type in QUANTIZING:
                node.domain = ""
        for value in model.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param in sizes:
                    dim.dim_value = sizes[dim.dim_param]
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        return onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True).graph


def open_graph(graph: Graph, path: Path) -> Opened:
    """Read the graph at ``path``; its weights stay where they are.

    Raises:
        BundleError: it is no ONNX file at all.
    """
    try:
        proto = onnx.load(path, load_external_data=False)
        files = (path, *_files_beside(proto, path.parent))
        _load_integers(proto, path.parent)
        inferred, problem = _infer(_inlined(proto))
        program = onnx_ir.from_proto(inferred)
    except (DecodeError, onnx.checker.ValidationError, onnx_ir.serde.SerdeError) as error:
        raise BundleError(f"`{path}` is not a well-formed ONNX graph: {error.__cause__ or error}") from error
    onnx_ir.external_data.set_base_dir(program.graph, path.parent)
    return Opened(graph, path, proto, problem, program, files)


def _infer(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """The graph with all types and shapes that can be inferred, and what of them contradicts itself."""
    problem = ""
    try:
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
        return onnx.shape_inference.infer_shapes(proto, data_prop=True), problem
    except onnx.shape_inference.InferenceError as error:
        problem = str(error)
    try:
        return onnx.shape_inference.infer_shapes(proto), problem
    except onnx.shape_inference.InferenceError:  # it raises on the worst of problems even when asked not to
        return proto, problem


def _files_beside(proto: onnx.ModelProto, folder: Path) -> list[Path]:
    external = (each for each in proto.graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL)
    names = {onnx.external_data_helper.ExternalDataInfo(tensor).location for tensor in external}
    return [folder / name for name in sorted(names)]


def _load_integers(proto: onnx.ModelProto, folder: Path) -> None:
    """Inference follows the values of integers, and stumbles where they are not in the graph."""
    for tensor in proto.graph.initializer:
        if tensor.data_type not in INTEGERS or tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        info = onnx.external_data_helper.ExternalDataInfo(tensor)
        path, size = folder / info.location, math.prod(tensor.dims) * INTEGERS[tensor.data_type]
        if path.is_file() and path.stat().st_size >= (info.offset or 0) + size:  # otherwise `check_format` finds it
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]


def constant(value: onnx_ir.Value | None) -> onnx_ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant node, which are the same to the engine."""
    if value is None:
        return None
    if value.is_initializer():
        return value.const_value
    return onnx_ir.convenience.get_const_tensor(value)


def number(value: onnx_ir.Value | None) -> float | None:
    """A constant of one element."""
    tensor = constant(value)
    return float(tensor.numpy().reshape(())) if tensor is not None and tensor.size == 1 else None


def is_fixed(value: onnx_ir.Value | None) -> bool:
    """Whether an engine builder can compute it: constants and fixed sizes, and what is made of these alone."""
    return value is None or not any(_varies(each) for each in _ancestors(value))


def is_static(value: onnx_ir.Value) -> bool:
    """Whether every size is a number."""
    return value.shape is not None and all(isinstance(size, int) for size in value.shape)


def rank(value: onnx_ir.Value | None) -> int | None:
    """Dimensions, None if they are not known."""
    return len(value.shape) if value is not None and value.shape is not None else None


def given(node: onnx_ir.Node, index: int) -> onnx_ir.Value | None:
    """The input at ``index``; None where it was left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def sources(value: onnx_ir.Value) -> Iterator[onnx_ir.Value]:
    """The inputs of the graph whose values, not only sizes, decide the values of ``value``."""
    return (each for each in _ancestors(value) if each.is_graph_input())


def _ancestors(value: onnx_ir.Value) -> Iterator[onnx_ir.Value]:
    """``value`` and all that it is computed from by value, constants aside."""
    seen: set[onnx_ir.Value] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if value in seen or constant(value) is not None:
            continue
        seen.add(value)
        yield value
        node = value.producer()
        if node is not None and node.op_type not in INDEX_OPERATORS:
            waiting += [source for source in node.inputs if source is not None]


def _varies(value: onnx_ir.Value) -> bool:
    node = value.producer()
    if node is None:
        return True
    source = node.inputs[0] if node.op_type in INDEX_OPERATORS else None
    return source is not None and not is_static(source)


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.inliner.inline_local_functions(proto) if proto.functions else proto


def _size(value: onnx.ValueInfoProto) -> tuple[int, np.dtype] | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    elements = math.prod(dim.dim_value for dim in kind.shape.dim)
    return elements, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
