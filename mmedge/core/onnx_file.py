"""Which files an ONNX model would make an engine open, read from its bytes before any engine sees it.

The walk over protobuf is our own because it runs on the device: the onnx package is not installed there, the protobuf
package alone knows no ONNX, and engines check such references late, differently, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from mmedge.core.manifest import File
from mmedge.core.names import is_plain_name, shown

CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
"""Fields of each message that lead to a tensor, by number; `Tensor` is where the walk ends."""
SINGLE = {("Model", 7), ("TrainingInfo", 1), ("TrainingInfo", 2), ("SparseTensor", 1), ("SparseTensor", 2)} | {
    ("Attribute", number) for number in (5, 6, 22)
}
"""Fields that occur once. Parsers would merge a repeated one, so that its halves must not be judged alone."""

_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 100  # as protobuf itself
_MOST_FIELDS = 4_000_000
_DIGITS = re.compile(r"[0-9]{1,16}")

Field: TypeAlias = tuple[int, "int | memoryview"]


class Reference(NamedTuple):
    """Where a tensor's bytes lie outside the model; ``length`` is None where they end with the file."""

    location: str
    offset: int
    length: int | None


def data_files(model: bytes, name: str, files: Mapping[str, File]) -> set[str]:
    """Names of the files that ``name`` with the content ``model`` refers to, each beside it and among ``files``.

    Raises:
        ValueError: the model is malformed, or refers to a place that does not exist in the bundle.
    """
    folder = name.rpartition("/")[0]
    found = set()
    for reference in references(model):
        target = f"{folder}/{reference.location}" if folder else reference.location
        if target not in files:
            raise ValueError(f"refers to `{target}`, which the manifest does not list")
        if reference.offset + (reference.length or 0) > files[target].size:
            raise ValueError(f"refers to bytes beyond the end of `{target}`")
        found.add(target)
    return found


def references(model: bytes) -> Iterator[Reference]:
    """Every reference to external data in a serialized ModelProto.

    Raises:
        ValueError: it is not well-formed, nested too deep, or a reference is not a plain file name with plain numbers.
    """
    return _walk("Model", memoryview(model), 0, allowance())


def allowance() -> Iterator[int]:
    """How many fields a model may have."""
    return iter(range(_MOST_FIELDS))


def _walk(kind: str, message: memoryview, depth: int, budget: Iterator[int]) -> Iterator[Reference]:
    if depth > _DEEPEST:
        raise ValueError(f"is nested more than {_DEEPEST} levels deep")
    if kind == "Tensor":
        yield from _reference(message, budget)
        return
    seen = set()
    for number, value in fields(message, budget):
        child = CHILDREN[kind].get(number)
        if child and isinstance(value, memoryview):
            if number in seen and (kind, number) in SINGLE:
                raise ValueError(f"has the field {number} of {kind} twice")
            seen.add(number)
            yield from _walk(child, value, depth + 1, budget)


def _reference(tensor: memoryview, budget: Iterator[int]) -> Iterator[Reference]:
    """External data is judged even where the tensor says that it does not use it: engines differ in whom they ask."""
    entries: dict[str, str] = {}
    external = False
    for number, value in fields(tensor, budget):
        if number == _EXTERNAL_DATA and isinstance(value, memoryview):
            key, text = _entry(value, budget)
            if key in entries or key not in ("location", "offset", "length"):
                raise ValueError(f"has a repeated or unknown key `{shown(key)}` in a reference to external data")
            entries[key] = text
        external |= number == _DATA_LOCATION and value != 0
    if not entries and not external:
        return
    location = entries.get("location", "")
    if not is_plain_name(location):
        raise ValueError(f"refers to `{shown(location)}`, which is no plain file name")
    offset, length = (_number(key, entries[key]) if key in entries else None for key in ("offset", "length"))
    yield Reference(location, offset or 0, length)


def _entry(pair: memoryview, budget: Iterator[int]) -> tuple[str, str]:
    parts = [(number, bytes(value)) for number, value in fields(pair, budget) if isinstance(value, memoryview)]
    if sorted(number for number, _ in parts) != [1, 2]:
        raise ValueError("has a reference to external data that is not one key and one value")
    found = dict(parts)
    return found[1].decode("utf-8"), found[2].decode("utf-8")


def _number(key: str, text: str) -> int:
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"has the {key} `{shown(text)}` in a reference to external data")
    return int(text)


def fields(message: memoryview, budget: Iterator[int]) -> Iterator[Field]:
    """Number and value of each field but numbers of 8 and 4 bytes, which nothing here needs; at most as many as
    ``budget`` yields.

    Raises:
        ValueError: it is not well-formed, or has more.
    """
    position, end = 0, len(message)
    while position < end:
        if next(budget, None) is None:
            raise ValueError(f"has more than {_MOST_FIELDS} fields")
        tag, position = _varint(message, position, 5)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag >= 1 << 32:  # engines would drop the upper bits and so read another field
            raise ValueError("is not a well-formed ONNX file: a field has an impossible number")
        if wire == _VARINT:
            value, position = _varint(message, position, 10)
            yield number, value
            continue
        if wire == _LENGTH:
            size, position = _varint(message, position, 10)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"is not a well-formed ONNX file: a field has the wire type {wire}")
        if size > end - position:
            raise ValueError("is not a well-formed ONNX file: a field ends beyond its message")
        if wire == _LENGTH:
            yield number, message[position : position + size]
        position += size


def _varint(message: memoryview, position: int, longest: int) -> tuple[int, int]:
    """A number of 7 bits a byte, low bits first, and the position after it."""
    value = 0
    for count, byte in enumerate(message[position : position + longest]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return value, position + count + 1
    raise ValueError("is not a well-formed ONNX file: a number does not end")
