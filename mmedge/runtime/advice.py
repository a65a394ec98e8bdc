"""What to do about what a machine lacks: the exact next command for each thing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from mmedge.core.board import Board
from mmedge.runtime.interpreter import EngineState, Interpreter

_HOT = 80.0
_LITTLE_MB = 2048
_LITTLE_DISK_MB = 2048
_PROCESSOR_BUILD = '"onnxruntime>=1.23.2,<2"'
_JETPACK_6_BUILD = "--index-url https://pypi.jetson-ai-lab.io/jp6/cu126/+simple/ onnxruntime-gpu"
_JETPACK_7_BUILDS = "https://github.com/Shattered217/Jetson-Orin-Wheels/releases"
_TRAP = "the onnxruntime-gpu of the index has no kernels for the GPU of a Jetson, and must not be used on one"


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
    if board.jetson:
        yield from _untold(board)
        yield from _old(board)
        yield from _tensorrt(engines.get("tensorrt"), library, modules, interpreter)
    yield from _onnxruntime(board, engines, interpreter)
    if board.jetson:
        yield from _tool(library, trtexec)
        yield from _speed(board, modes)
    yield from _room(board, free_memory_mb, memory_mb, interpreter)


def _untold(board: Board) -> Iterator[Advice]:
    """Without it nothing that was compiled can be told from what another Jetson Linux compiled."""
    if not board.l4t:
        yield Advice(
            "missing",
            "this is a Jetson, but there is no /etc/nv_tegra_release that tells its Jetson Linux: start a container "
            "with `--runtime nvidia --volume /etc/nv_tegra_release:/etc/nv_tegra_release:ro`",
            (),
        )


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
            f"the module `tensorrt` is for Python {' and '.join(modules)}, this is Python {mine}; in the folder that "
            "`mmedge pack` made for this board:",
            (f'PYTHON={python} VENV="$HOME/mmedge" ./install.sh', "~/mmedge/bin/mmedge doctor"),
        )
    elif not interpreter.sees_system:
        yield Advice(
            "missing",
            f"this virtual environment does not see the system's packages, where `tensorrt` {library} is",
            (f"/usr/bin/python{mine} -m venv --system-site-packages {shlex.quote(interpreter.prefix)}",),
        )
    else:
        yield Advice(
            "missing",
            f"the module `tensorrt` is here, but: {engine.problem}",
            ("sudo apt install --reinstall python3-libnvinfer",),
        )


def _onnxruntime(board: Board, engines: dict[str, EngineState], interpreter: Interpreter) -> Iterator[Advice]:
    """At most one thing, as only one build of it can be there. On a Jetson the one with the GPU is the first
    fall-back, and the wheel of the index is a trap."""
    unusable = {name: engine.problem for name, engine in engines.items() if not engine.usable}
    there = interpreter.packages.get("onnxruntime-gpu")
    where, build = _build_for(board)
    if board.jetson and there and "onnxruntime_gpu" in unusable:
        what = f"onnxruntime-gpu {there} cannot be used here ({unusable['onnxruntime_gpu']}): {_TRAP}"
        yield Advice("missing", what + where, _installed(interpreter, build))
    elif "onnxruntime" in unusable:
        what = f"ONNX Runtime, which every bundle can fall back on, cannot be used: {unusable['onnxruntime']}"
        yield Advice("missing", what, _installed(interpreter, _PROCESSOR_BUILD))
    elif build != _PROCESSOR_BUILD and "onnxruntime_gpu" in unusable:
        what = f"to fall back on ONNX Runtime with the GPU a build for JetPack is needed: {_TRAP}"
        yield Advice("better", what + where, _installed(interpreter, build))


def _build_for(board: Board) -> tuple[str, str]:
    """Where to get ONNX Runtime with kernels for this GPU, in words, and what pip installs; else that for the CPU."""
    if board.jetpack.startswith("6"):
        return "", _JETPACK_6_BUILD
    if board.jetpack.startswith("7"):
        words = f"; take the wheel for your JetPack from {_JETPACK_7_BUILDS} and, in the folder where it is:"
        return words, "./onnxruntime_gpu-*.whl"
    return "", _PROCESSOR_BUILD


def _installed(interpreter: Interpreter, build: str) -> tuple[str, ...]:
    """By this very Python, whatever `pip` is found first. All builds fill the same folder, so others go before."""
    pip = f"{shlex.quote(interpreter.executable)} -m pip"
    there = [name for name in ("onnxruntime", "onnxruntime-gpu") if name in interpreter.packages]
    return (*([f"{pip} uninstall --yes {' '.join(there)}"] if there else []), f"{pip} install {build}")


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
        todo = ("sudo systemctl isolate multi-user.target",) if board.jetson else ()
        yield Advice("better", f"only {free_memory_mb:,} of {memory_mb:,} MiB of memory are free", todo)
    if interpreter.free_disk_mb < _LITTLE_DISK_MB:
        yield Advice("better", f"only {interpreter.free_disk_mb:,} MiB of this disk are free", ())
    if board.temperatures and (hottest := max(board.temperatures.values())) >= _HOT:
        yield Advice("better", f"it is {hottest:.0f} °C hot, and clocks are lowered to cool it: use a fan", ())
