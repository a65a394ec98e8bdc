"""Whether a file is a sound ONNX graph, and the one that its manifest describes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import onnx
import onnx_ir

from mmedge.core.ports import Port
from mmedge.export.check.findings import Finding
from mmedge.export.check.opened import Opened

AGAIN = "export the bundle again"


def check_format(opened: Opened) -> Iterator[Finding]:
    """The checker of ONNX itself, its strict inference of types and shapes, and the weights beside the file."""
    missing = list(_check_weights(opened))
    yield from missing
    try:
        onnx.checker.check_model(opened.path)
    except onnx.checker.ValidationError as error:
        if not missing:  # of which it complains too
            yield opened.finding("format/invalid", "error", _first_line(error), AGAIN)
    if opened.problem:
        yield opened.finding("format/types", "error", _first_line(opened.problem), AGAIN)


def check_ports(opened: Opened) -> Iterator[Finding]:
    """Inputs and outputs are those that the manifest promises."""
    constants = {tensor.name for tensor in opened.proto.graph.initializer}
    inputs = [value for value in opened.proto.graph.input if value.name not in constants]
    cache = opened.graph.cache
    promised = (*opened.graph.outputs, *(cache.present() if cache else ()))
    yield from _compare(opened, "input", inputs, opened.ports)
    yield from _compare(opened, "output", opened.proto.graph.output, promised)


def _check_weights(opened: Opened) -> Iterator[Finding]:
    """Every external tensor lies whole in a file beside the graph."""
    bad: dict[str, str] = {}
    for value in _constants(opened.program):
        tensor = value.const_value
        if not isinstance(tensor, onnx_ir.ExternalTensor):
            continue
        path, end = opened.path.parent / tensor.location, (tensor.offset or 0) + (tensor.length or 0)
        if not path.is_file():
            bad.setdefault(tensor.location, f"`{tensor.location}`, which holds `{value.name}`, is missing")
        elif path.stat().st_size < max(end, tensor.nbytes):
            bad.setdefault(tensor.location, f"`{tensor.location}` ends before `{value.name}`")
    for message in bad.values():
        yield opened.finding("format/weights", "error", message, "copy the whole bundle")


def _constants(program: onnx_ir.Model) -> Iterator[onnx_ir.Value]:
    graphs = [program.graph, *program.graph.subgraphs()]
    return (value for graph in graphs for value in graph.initializers.values())


def _compare(
    opened: Opened, what: str, values: list[onnx.ValueInfoProto], ports: tuple[Port, ...]
) -> Iterator[Finding]:
    there, promised = {value.name: value for value in values}, {port.name: port for port in ports}
    for name in sorted(there.keys() ^ promised.keys()):
        where = "the manifest does not list it" if name in there else "the graph does not have it"
        yield opened.finding("ports/names", "error", f"{what} `{name}`: {where}", AGAIN)
    for name in sorted(promised.keys() & there.keys()):
        if wrong := _difference(what, there[name], promised[name]):
            yield opened.finding("ports/shape", "error", f"{what} `{name}` is {wrong}", AGAIN)


def _difference(what: str, value: onnx.ValueInfoProto, port: Port) -> str | None:
    kind = value.type.tensor_type
    dtype = _dtype(kind.elem_type)
    if dtype != port.dtype:
        return f"{dtype}, the manifest says {port.dtype}"
    shape = [_size(dim) for dim in kind.shape.dim]
    fits = len(shape) == len(port.shape) and all(map(_agree, repeat(what), shape, port.shape))
    return None if fits else f"{shape}, the manifest says {list(port.shape)}"


def _dtype(kind: int) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(kind)) if kind else "no tensor"


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str:
    return dim.dim_value if dim.HasField("dim_value") else dim.dim_param


def _agree(what: str, there: int | str, promised: int | str) -> bool:
    """A word is a size that varies, on both sides; of an output the graph or the manifest may leave it open."""
    if isinstance(there, int) and isinstance(promised, int):
        return there == promised
    return what == "output" or isinstance(there, str) == isinstance(promised, str)


def _first_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
