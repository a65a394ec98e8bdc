"""What the double of TensorRT calls an engine: the ONNX model with its weights, and what it was built for."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

MAGIC = b"DOUBLE OF A TENSORRT ENGINE\n"


class Tensor(NamedTuple):
    """An input or output: the type as TensorRT shows it, -1 for sizes that vary, and their words in the ONNX file."""

    name: str
    dtype: str
    shape: list[int]
    words: list[str]


class Plan(NamedTuple):
    """Everything in an engine file but the model."""

    version: str
    compute_capability: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    profiles: list[dict[str, list[list[int]]]]
    aliases: dict[str, str]
    """Input by output, where an output is written in the memory of an input."""
    shares_profiles: bool
    flags: list[str]
    typed: bool
    pools: dict[str, int]
    level: int


def to_bytes(plan: Plan, model: bytes) -> bytes:
    header = json.dumps(plan._asdict()).encode()
    return MAGIC + len(header).to_bytes(8, "little") + header + model


def from_bytes(data: bytes) -> tuple[Plan, bytes]:
    """Raises ValueError for anything else."""
    if not data.startswith(MAGIC):
        raise ValueError("magic tag does not match")
    start = len(MAGIC) + 8
    end = start + int.from_bytes(data[len(MAGIC) : start], "little")
    values: dict[str, Any] = json.loads(data[start:end])
    for kind in ("inputs", "outputs"):
        values[kind] = [Tensor(*tensor) for tensor in values[kind]]
    return Plan(**values), data[end:]
