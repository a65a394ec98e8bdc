"""A device as data: ``mmedge/targets/<name>.toml``."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from mmedge.core.names import shown


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
    """What its engines are told besides; those of `WHOLE` and `OTHERS` are checked, the rest is left to its engines."""

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec tells with its place, where an option is nothing that it can be."""
        for name, value in self.options.items():
            _check_option(name, value)


WHOLE: dict[str, tuple[int, int | None]] = {
    "workspace_mb": (0, 1 << 24),
    "builder_mb": (0, None),
    "builder_level": (0, 5),
}
"""Options that are whole numbers, with the smallest and the largest that they can be."""

OTHERS: dict[str, tuple[type, str]] = {"cuda_graph": (bool, "true or false"), "device": (str, "the name of a device")}


def _check_option(name: str, value: str | int | bool) -> None:
    if name in WHOLE:
        smallest, largest = WHOLE[name]
        fits = type(value) is int and smallest <= value and (largest is None or value <= largest)
        wanted = (
            f"a whole number, {smallest} or more" if largest is None else f"a whole number, {smallest} to {largest}"
        )
    elif name in OTHERS:
        kind, wanted = OTHERS[name]
        fits = type(value) is kind
    else:
        return
    if not fits:
        raise ValueError(f"the option `{name}` is `{shown(str(value))}`, it must be {wanted}")
