"""A device as data: ``mmedge/targets/<name>.toml``."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Stack(Struct, frozen=True, forbid_unknown_fields=True):
    """The system software of a device, which its engines come with."""

    name: str
    """Such as ``JetPack 6.2``."""
    python: str
    cuda: str = ""
    tensorrt: str = ""
    operators: str = ""
    """The table of operators that its TensorRT reads: a key of ``targets/data/tensorrt_operators.json``."""


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
    precision: str = "float32"
    """What is made where neither the recipe nor the user says."""
    activations: str = "uint8"
    """How static int8 activations are spelled: ``uint8`` (asymmetric) or ``int8`` (symmetric, zero point 0)."""
    weights: Literal["blocks", "nbits"] = "blocks"
    """How weight-only quantization is spelled: ``blocks`` (standard DequantizeLinear and MatMul) or ``nbits`` (ONNX
    Runtime's own MatMulNBits)."""
    cache: Literal["growing", "fixed"] = "growing"
    """How a decoder keeps its keys and values (`core.ports.CacheShape`)."""
    typed: bool = False
    """Whether its engine computes in the very types that a graph says: then float16 graphs are float16 up to their
    inner edges (cache, values handed between graphs), and int8 graphs are float16 around their integers."""
    contiguous_mb: int = 0
    """Largest block of device memory that can be counted on, MiB; 0 where only the total counts."""
    fallback: tuple[str, ...] = ()
    """Engines to try in this order where the one of ``backends`` is missing."""
    experimental: tuple[str, ...] = ()
    """Precisions that nobody has measured there; an export says so."""
    stacks: tuple[Stack, ...] = ()
    """System software that the device may have; a bundle must suit every one of them."""
    bandwidth_gbs: float = 0.0
    """Memory bandwidth, GB/s (10^9), from the data sheet: for predictions."""
    tflops: dict[str, float] = {}
    """Peak dense arithmetic by precision, 10^12 operations a second, from the data sheet: for predictions."""
    aliases: tuple[str, ...] = ()
    options: dict[str, str | int | bool] = {}
