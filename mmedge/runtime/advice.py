"""What to do about what a machine lacks: the exact next command for each thing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from mmedge.core.board import Board
from mmedge.runtime.interpreter import EngineState, Interpreter

_HOT = 80.0
_LITTLE_MB = 2048
_LITTLE_DISK_MB = 2048
_FOR_JETSON = {
    "6": "pip install --index-url https://pypi.jetson-ai-lab.io/jp6/cu126/+simple/ onnxruntime-gpu",
    "7": "pip install <the wheel for your JetPack from https://github.com/Shattered217/Jetson-Orin-Wheels/releases>",
}
"""Builds of ONNX Runtime with kernels for the GPU of a Jetson, by generation of JetPack."""


class Advice(Struct, frozen=True):
    """Something that is missing or could be better."""

    weight: Literal["missing", "better"]
    what: str
    todo: tuple[str, ...]
    """Commands, in order."""


def advice(
    *,
    board: Board,
    modes: dict[str, str],
    free_memory_mb: int,
    memory_mb: int,
    library: str,
    modules: tuple[str, ...],
    trtexec: str,
    interpreter: Interpreter,
) -> Iterator[Advice]:
    """What is missing first. ``library`` is the version of libnvinfer on the disk, ``modules`` the Pythons that have
    the module `tensorrt`."""
    engines = {engine.name: engine for engine in interpreter.engines}
    if board.l4t:
        yield from _old(board)
        yield from _tensorrt(engines.get("tensorrt"), library, modules, interpreter)
        yield from _graphics(board, engines.get("onnxruntime_gpu"), interpreter)
    yield from _processor(engines.get("onnxruntime"))
    if board.l4t:
        yield from _tool(library, trtexec)
        yield from _speed(board, modes)
    yield from _room(board, free_memory_mb, memory_mb, interpreter)


def _old(board: Board) -> Iterator[Advice]:
    if board.jetpack.partition(".")[0] in ("4", "5"):
        yield Advice(
            "missing",
            f"JetPack {board.jetpack} has an older Python and an older TensorRT than bundles are made for (JetPack 6)",
            ("flash JetPack 6.2 or later with the SDK Manager",),
        )


def _tensorrt(
    engine: EngineState | None, library: str, modules: tuple[str, ...], interpreter: Interpreter
) -> Iterator[Advice]:
    if engine is None or engine.usable:
        return
    mine = ".".join(interpreter.version.split(".")[:2])
    if engine.version:
        yield Advice(
            "missing",
            f"TensorRT {engine.version} is here, its GPU is not: {engine.problem}; who uses it must be in the group "
            "`video`, and a container must be started with `--runtime nvidia`",
            ("sudo usermod --append --groups video $USER",),
        )
    elif not library:
        yield Advice("missing", "TensorRT is not installed", ("sudo apt update", "sudo apt install nvidia-jetpack"))
    elif not modules:
        yield Advice(
            "missing",
            f"TensorRT {library} is here, its Python module is not",
            ("sudo apt install python3-libnvinfer",),
        )
    elif mine not in modules:
        python = f"/usr/bin/python{modules[-1]}"
        yield Advice(
            "missing",
            f"the module `tensorrt` is for Python {' and '.join(modules)}, this is Python {mine}",
            (
                f"{python} -m venv --system-site-packages ~/mmedge",
                '~/mmedge/bin/pip install "mmedge[onnxruntime]"',
                "~/mmedge/bin/mmedge doctor",
            ),
        )
    elif not interpreter.sees_system:
        yield Advice(
            "missing",
            f"this virtual environment does not see the system's packages, where `tensorrt` {library} is",
            (f"/usr/bin/python{mine} -m venv --system-site-packages {interpreter.prefix}",),
        )
    else:
        yield Advice(
            "missing",
            f"the module `tensorrt` is here, but: {engine.problem}",
            ("sudo apt install --reinstall python3-libnvinfer",),
        )


def _graphics(board: Board, engine: EngineState | None, interpreter: Interpreter) -> Iterator[Advice]:
    """ONNX Runtime with the GPU is the first fall-back; the wheel of the index is a trap."""
    if engine is None or engine.usable:
        return
    install = _FOR_JETSON.get(board.jetpack.partition(".")[0])
    wheel = interpreter.packages.get("onnxruntime-gpu")
    trap = "the onnxruntime-gpu of the index has no kernels for the GPU of a Jetson, and must not be used on one"
    remove = tuple(f"pip uninstall {name}" for name in ("onnxruntime-gpu", "onnxruntime") if wheel)
    if wheel:
        yield Advice(
            "missing",
            f"onnxruntime-gpu {wheel} cannot be used here ({engine.problem}): {trap}",
            (*remove, install or "pip install onnxruntime"),
        )
    elif install:
        yield Advice(
            "better", f"to fall back on ONNX Runtime with the GPU a build for JetPack is needed: {trap}", (install,)
        )


def _processor(engine: EngineState | None) -> Iterator[Advice]:
    if engine is not None and not engine.usable:
        yield Advice(
            "missing",
            f"ONNX Runtime, which every bundle can fall back on, cannot be used: {engine.problem}",
            ('pip install "mmedge[onnxruntime]"',),
        )


def _tool(library: str, trtexec: str) -> Iterator[Advice]:
    if library and not trtexec:
        yield Advice(
            "better",
            "trtexec is not installed; only `mmedge compile --trtexec` has a use for it",
            ("sudo apt install libnvinfer-bin",),
        )


def _speed(board: Board, modes: dict[str, str]) -> Iterator[Advice]:
    best = max(modes, key=_power, default="")
    if board.power_mode and best and _power(board.power_mode) < _power(best):
        yield Advice(
            "better",
            f"the power mode is {board.power_mode}; the fastest of this module is {best}",
            (f"sudo nvpmodel -m {modes[best]}",),
        )
    if board.clocks and not board.clocks_fixed:
        yield Advice("better", "the clocks change with the load: fix them before measuring", ("sudo jetson_clocks",))


def _power(mode: str) -> float:
    """Watts in the name of a mode; those without a limit are called MAXN."""
    watts = re.search(r"(\d+)W", mode)
    return float("inf") if mode.startswith("MAXN") else float(watts[1]) if watts else 0.0


def _room(board: Board, free_memory_mb: int, memory_mb: int, interpreter: Interpreter) -> Iterator[Advice]:
    if free_memory_mb < min(_LITTLE_MB, memory_mb // 2):
        todo = ("sudo systemctl isolate multi-user.target",) if board.l4t else ()
        yield Advice("better", f"only {free_memory_mb:,} of {memory_mb:,} MiB of memory are free", todo)
    if interpreter.free_disk_mb < _LITTLE_DISK_MB:
        yield Advice("better", f"only {interpreter.free_disk_mb:,} MiB of this disk are free", ())
    if board.temperatures and (hottest := max(board.temperatures.values())) >= _HOT:
        yield Advice("better", f"it is {hottest:.0f} °C hot, and clocks are lowered to cool it: use a fan", ())
