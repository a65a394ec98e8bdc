"""A device as data: ``mmedge/targets/<name>.toml``."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Target(Struct, frozen=True, forbid_unknown_fields=True):
    """What a bundle is made for: one device, its engines and what they accept."""

    name: str
    title: str
    arch: str
    """``x86_64``, ``aarch64`` or ``any``."""
    memory_mb: int
    """Memory a bundle may plan with, MiB."""
    backends: dict[str, str]
    """Engine by role: ``tower`` (runs once an answer) and ``decode`` (runs once a token)."""
    precisions: tuple[str, ...]
    """Component precisions that its engines run, the safest first."""
    presets: dict[str, dict[str, str]]
    """What ``--precision NAME`` means per role."""
    opset: int
    """Highest ONNX operator set that its engines read."""
    activations: str = "uint8"
    """How static int8 activations are spelled: ``uint8`` (asymmetric) or ``int8`` (symmetric, zero point 0)."""
    weights: Literal["blocks", "nbits"] = "blocks"
    """How weight-only quantization is spelled: ``blocks`` (standard DequantizeLinear and MatMul) or ``nbits`` (ONNX
    Runtime's own MatMulNBits)."""
    aliases: tuple[str, ...] = ()
    options: dict[str, str | int | bool] = {}
