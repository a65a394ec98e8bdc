"""The nodes and constants of an ONNX model, read from its bytes, and models with more outputs.

As in `core.onnx_file` the reading is our own because it runs on the device. Graphs inside nodes (If, Loop) are left
out, and so are the values of constants: what is wanted is who computes what from which tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mmedge.core.onnx_file import allowance, fields

TYPES = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    16: ("bfloat16", 16),
    17: ("float8", 8),
    18: ("float8", 8),
    19: ("float8", 8),
    20: ("float8", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
    23: ("float4", 4),
}
"""Name and bits of an element, by its number in `onnx.proto`."""
BITS = dict(TYPES.values())


class Tensor(NamedTuple):
    """What a tensor is, without its values."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return (self.size * BITS[self.dtype] + 7) // 8


class Node(NamedTuple):
    """One step of a graph."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    """Empty where an optional one is left out."""
    outputs: tuple[str, ...]
    numbers: dict[str, int]
    """Attributes that are one integer."""


class OnnxGraph(NamedTuple):
    """What computes what."""

    nodes: tuple[Node, ...]
    """Each after those whose outputs it reads."""
    constants: dict[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def makers(self) -> dict[str, Node]:
        """By tensor, the node that makes it."""
        return {name: node for node in self.nodes for name in node.outputs if name}


def read_graph(model: bytes) -> OnnxGraph:
    """The main graph of a serialized ModelProto.

    Raises:
        ValueError: it is not well-formed.
    """
    budget = allowance()
    nodes: list[Node] = []
    constants: dict[str, Tensor] = {}
    edges: dict[int, list[str]] = {11: [], 12: []}
    parts = (part for graph in _parts(memoryview(model), 7, budget) for part in fields(graph, budget))
    for number, value in parts:
        if not isinstance(value, memoryview):
            continue
        if number == 1:
            _add_node(value, nodes, constants, budget)
        elif number == 5:
            name, tensor = _tensor(value, budget)
            constants[name] = tensor
        elif number in edges:
            edges[number].append(_text(next(_parts(value, 1, budget), memoryview(b""))))
    inputs = tuple(name for name in edges[11] if name not in constants)
    return OnnxGraph(tuple(nodes), constants, inputs, tuple(edges[12]))


def with_outputs(model: bytes, names: Iterable[str]) -> bytes:
    """The model with these tensors as further outputs.

    What is appended is a second model with nothing but the outputs of its graph: readers of protobuf join the two.
    """
    outputs = b"".join(field(12, field(1, name.encode())) for name in names)
    return model + field(7, outputs) if outputs else model


def _add_node(message: memoryview, nodes: list[Node], constants: dict[str, Tensor], budget: Iterator[int]) -> None:
    """A node of the kind Constant is only told among the constants."""
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    attributes: list[memoryview] = []
    for number, value in fields(message, budget):
        if isinstance(value, memoryview) and number in texts:
            texts[number].append(_text(value))
        elif isinstance(value, memoryview) and number == 5:
            attributes.append(value)
    op = "".join(texts[4])
    if op == "Constant":
        constants[texts[2][0]] = next(_constants(attributes, budget), Tensor("int64", ()))
        return
    numbers = dict(_numbers(attributes, budget))
    nodes.append(Node("".join(texts[3]), op, "".join(texts[7]), tuple(texts[1]), tuple(texts[2]), numbers))


def _numbers(attributes: Iterable[memoryview], budget: Iterator[int]) -> Iterator[tuple[str, int]]:
    for attribute in attributes:
        name, number = "", None
        for field, value in fields(attribute, budget):
            if field == 1 and isinstance(value, memoryview):
                name = _text(value)
            elif field == 3 and isinstance(value, int):
                number = value - (1 << 64) if value >> 63 else value
        if number is not None:
            yield name, number


def _constants(attributes: Iterable[memoryview], budget: Iterator[int]) -> Iterator[Tensor]:
    for attribute in attributes:
        for tensor in _parts(attribute, 5, budget):
            yield _tensor(tensor, budget)[1]


def _tensor(message: memoryview, budget: Iterator[int]) -> tuple[str, Tensor]:
    name, kind, sizes = "", 1, list[int]()
    for number, value in fields(message, budget):
        if number == 1:
            sizes += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 8 and isinstance(value, memoryview):
            name = _text(value)
    if kind not in TYPES:
        raise ValueError(f"has the constant `{name}` of the type {kind}, which has no fixed size")
    return name, Tensor(TYPES[kind][0], tuple(sizes))


def _packed(message: memoryview) -> list[int]:
    """Numbers of 7 bits a byte without anything between them."""
    numbers, shift, value = list[int](), 0, 0
    for byte in message:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            shift, value = 0, 0
    return numbers


def _parts(message: memoryview, wanted: int, budget: Iterator[int]) -> Iterator[memoryview]:
    return (value for number, value in fields(message, budget) if number == wanted and isinstance(value, memoryview))


def _text(value: memoryview) -> str:
    return bytes(value).decode("utf-8")


def field(number: int, content: bytes) -> bytes:
    """A field that holds bytes, as it is written."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A number of 7 bits a byte, low bits first."""
    rest = bytearray()
    while value > 0x7F:
        rest.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*rest, value])
