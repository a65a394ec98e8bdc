"""Graphs of one node that show what an engine can do at most: a matrix product in a precision, and a copy.

The bytes are written here because the package that writes ONNX is not on a device. Products are spelled as the graphs
of bundles are: float, static int8 between Q and DQ, and weights alone in blocks of 64, as DequantizeLinear or as
MatMulNBits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mmedge.core.manifest import Graph
from mmedge.core.onnx_graph import TYPES, field, varint
from mmedge.core.ports import CacheShape, Port

BLOCK = 64
Edge: TypeAlias = "tuple[str, tuple[int | str, ...]]"
"""Type and shape."""

_TYPE_OF = {name: number for number, (name, _) in TYPES.items()}
_IR, _OPSET = 10, 21
_VENDOR = "com.microsoft"
_SCALE = 1 / 64


def product(
    folder: Path, precision: str, size: int, *, nbits: bool = False, rows: int | None = None
) -> tuple[Graph, Path]:
    """``y = x W`` of ``size`` inputs, outputs and, unless told otherwise, rows.

    Raises:
        KeyError: there is no such precision.
    """
    weight = np.random.default_rng(0).integers(-100, 100, (size, size)).astype(np.int8)
    kind = "float16" if precision == "float16" else "float32"
    spelled = _BODIES["nbits" if nbits and precision.endswith("-weights") else precision](weight)
    path = folder / "probe.onnx"
    shape = (size if rows is None else rows, size)
    path.write_bytes(_model(spelled, {"x": (kind, shape)}, {"y": (kind, shape)}))
    edge = [Port(name, kind, shape) for name in "xy"]
    return Graph("probe", path.name, (edge[0],), (edge[1],), precision), path


def copy(folder: Path, elements: int) -> tuple[Graph, Path]:
    """A cache of ``elements`` float32 in each of its two tensors, with the other sign: its buffers are there before, so
    that nothing is measured but reading and writing. What does nothing, such as a product with one, would be taken out,
    and what is left is a copy that does not read what it overwrites, as every other node does."""
    cache = CacheShape(1, 1, 1024, capacity=elements // 1024)
    nodes = b"".join(
        _node("Neg", (past.name,), (present.name,)) for past, present in zip(cache.past(), cache.present(), strict=True)
    )
    nodes += _node("Shape", ("input_ids",), ("token",))
    ids, token = Port("input_ids", "int64", (1, "length")), Port("token", "int64", (2,))
    inputs = {port.name: (port.dtype, port.shape) for port in (ids, *cache.past(), *cache.steering())}
    outputs = {port.name: (port.dtype, port.shape) for port in (token, *cache.present())}
    path = folder / "copy.onnx"
    path.write_bytes(_model(nodes, inputs, outputs))
    return Graph("copy", path.name, (ids,), (token,), "float32", cache), path


def _float(weight: np.ndarray, kind: type = np.float32) -> bytes:
    return _node("MatMul", ("x", "w"), ("y",)) + _constant("w", (weight * np.float32(_SCALE)).astype(kind))


def _static(weight: np.ndarray) -> bytes:
    """With the int32 bias without which ONNX Runtime computes an int8 Gemm in float."""
    scales = np.full(len(weight), _SCALE, np.float32)
    return b"".join(
        (
            _node("QuantizeLinear", ("x", "scale", "zero"), ("q",)),
            _node("DequantizeLinear", ("q", "scale", "zero"), ("d",)),
            _node("DequantizeLinear", ("w", "scales", "zeros"), ("dw",), axis=1),
            _node("DequantizeLinear", ("b", "bias_scales", "bias_zeros"), ("db",), axis=0),
            _node("Gemm", ("d", "dw", "db"), ("y",)),
            _constant("scale", np.float32(_SCALE)),
            _constant("zero", np.uint8(128)),
            _constant("w", weight),
            _constant("scales", scales),
            _constant("zeros", np.zeros(len(weight), np.int8)),
            _constant("b", np.zeros(len(weight), np.int32)),
            _constant("bias_scales", scales * np.float32(_SCALE)),
            _constant("bias_zeros", np.zeros(len(weight), np.int32)),
        )
    )


def _blocks(weight: np.ndarray, bits: int) -> bytes:
    values = weight if bits == 8 else _pairs(weight & 15)
    kind = "int8" if bits == 8 else "int4"
    scales = np.full((len(weight) // BLOCK, len(weight)), _SCALE, np.float32)
    return b"".join(
        (
            _node("DequantizeLinear", ("w", "scales"), ("dw",), axis=0, block_size=BLOCK),
            _node("MatMul", ("x", "dw"), ("y",)),
            _constant("w", values, kind, weight.shape),
            _constant("scales", scales),
        )
    )


def _nbits(weight: np.ndarray) -> bytes:
    size = len(weight)
    attributes = {"K": size, "N": size, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    return b"".join(
        (
            _node("MatMulNBits", ("x", "w", "scales"), ("y",), _VENDOR, **attributes),
            _constant("w", weight.view(np.uint8).reshape(size, size // BLOCK, BLOCK)),
            _constant("scales", np.full((size, size // BLOCK), _SCALE, np.float32)),
        )
    )


_BODIES = {
    "float32": _float,
    "float16": lambda weight: _float(weight, np.float16),
    "int8": _static,
    "int8-weights": lambda weight: _blocks(weight, 8),
    "int4-weights": lambda weight: _blocks(weight, 4),
    "nbits": _nbits,
}
PRECISIONS = tuple(name for name in _BODIES if name != "nbits")


def _pairs(values: np.ndarray) -> np.ndarray:
    """Two of four bits in a byte, the low half first."""
    flat = values.astype(np.uint8).ravel()
    return flat[::2] | flat[1::2] << 4


def _model(body: bytes, inputs: Mapping[str, Edge], outputs: Mapping[str, Edge]) -> bytes:
    graph = body + field(2, b"probe") + b"".join(_edges(11, inputs)) + b"".join(_edges(12, outputs))
    opsets = (_opset("", _OPSET), _opset(_VENDOR, 1))
    return _number(1, _IR) + field(7, graph) + b"".join(opsets)


def _opset(domain: str, version: int) -> bytes:
    return field(8, field(1, domain.encode()) + _number(2, version))


def _edges(number: int, ports: Mapping[str, Edge]) -> Iterator[bytes]:
    for name, (kind, shape) in ports.items():
        sizes = b"".join(field(1, _size(size)) for size in shape)
        tensor = _number(1, _TYPE_OF[kind]) + field(2, sizes)
        yield field(number, field(1, name.encode()) + field(2, field(1, tensor)))


def _size(size: int | str) -> bytes:
    return field(2, size.encode()) if isinstance(size, str) else _number(1, size)


def _node(op: str, inputs: Iterable[str], outputs: Iterable[str], domain: str = "", /, **attributes: int) -> bytes:
    """Called as what it makes."""
    edges = [field(number, name.encode()) for number, names in ((1, inputs), (2, outputs)) for name in names]
    told = [field(5, field(1, key.encode()) + _number(3, value) + _number(20, 2)) for key, value in attributes.items()]
    name = next(iter(outputs))
    return field(
        1, b"".join((*edges, field(3, name.encode()), field(4, op.encode()), *told, field(7, domain.encode())))
    )


def _constant(name: str, value: np.ndarray, kind: str = "", shape: tuple[int, ...] | None = None) -> bytes:
    array = np.asarray(value)
    sizes = b"".join(_number(1, size) for size in (array.shape if shape is None else shape))
    number = _number(2, _TYPE_OF[kind or str(array.dtype)])
    return field(5, sizes + number + field(8, name.encode()) + field(9, array.tobytes()))


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)
