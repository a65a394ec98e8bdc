"""What this machine has to run bundles, and what it lacks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec import Struct

from mmedge.core import board
from mmedge.core.board import Board
from mmedge.runtime.advice import Advice, advice
from mmedge.runtime.device import Device, this_device
from mmedge.runtime.interpreter import Interpreter, this_interpreter

_ROOT = Path("/")
_PATIENCE_S = 10
_TRTEXEC = "usr/src/tensorrt/bin/trtexec"

Run: TypeAlias = Callable[[Sequence[str]], str]
"""Runs a command and returns what it printed; empty if it is not there or fails."""


class TensorRtFiles(Struct, frozen=True):
    """What of TensorRT lies on the disk, whoever can use it."""

    library: str
    """Version of libnvinfer."""
    modules: tuple[str, ...]
    """Versions of Python that the system has the module `tensorrt` for, such as ``3.10``."""
    trtexec: str


class Diagnosis(Struct, frozen=True):
    """Everything that was found."""

    device: Device
    board: Board
    free_memory_mb: int
    swap_mb: int
    cuda: str
    """Version of the CUDA toolkit; empty if there is none."""
    tensorrt: TensorRtFiles
    interpreter: Interpreter
    advice: tuple[Advice, ...]

    @property
    def can_run(self) -> bool:
        """Whether any engine can be used."""
        return any(engine.usable for engine in self.interpreter.engines)


def diagnose(
    root: Path = _ROOT, run: Run | None = None, interpreter: Interpreter | None = None, device: Device | None = None
) -> Diagnosis:
    """Look at the machine whose files are below ``root``; what is not given is that of this process."""
    found = interpreter or this_interpreter()
    machine = device or this_device()
    mode = board.queried_power_mode((run or _run)(("nvpmodel", "-q")))
    state = board.this_board(root)
    state = msgspec.structs.replace(state, power_mode=mode or state.power_mode)
    memory = _memory(root)
    files = _tensorrt(root, found)
    return Diagnosis(
        device=machine,
        board=state,
        free_memory_mb=memory.get("MemAvailable", 0),
        swap_mb=memory.get("SwapTotal", 0),
        cuda=_cuda(root),
        tensorrt=files,
        interpreter=found,
        advice=tuple(
            advice(
                board=state,
                modes=board.power_modes(root),
                free_memory_mb=memory.get("MemAvailable", 0),
                memory_mb=machine.memory_mb,
                library=files.library,
                modules=files.modules,
                trtexec=files.trtexec,
                interpreter=found,
            )
        ),
    )


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _memory(root: Path) -> dict[str, int]:
    """MiB by name."""
    lines = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) // 1024 for words in lines if len(words) == 3}


def _cuda(root: Path) -> str:
    try:
        told = msgspec.json.decode((root / "usr/local/cuda/version.json").read_bytes())
        return str(told["cuda"]["version"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return ""


def _tensorrt(root: Path, interpreter: Interpreter) -> TensorRtFiles:
    libraries = [path.name.partition(".so.")[2] for path in root.glob("usr/lib/*-linux-gnu/libnvinfer.so.*")]
    modules = root.glob("usr/lib/python3*/dist-packages/tensorrt/__init__.py")
    own = root / _TRTEXEC
    return TensorRtFiles(
        library=interpreter.libnvinfer or max(libraries, key=len, default=""),
        modules=tuple(sorted(_pythons(root, [path.parts[-4] for path in modules]))),
        trtexec=interpreter.trtexec or (f"/{_TRTEXEC}" if own.is_file() else ""),
    )


def _pythons(root: Path, folders: Sequence[str]) -> set[str]:
    """Debian keeps the modules of its own Python, whatever its version, in ``python3``."""
    system = sorted(path.name for path in (root / "usr/bin").glob("python3.[0-9]*") if path.name[8:].isdecimal())
    found = set()
    for folder in folders:
        named = folder.removeprefix("python")
        found |= {name.removeprefix("python") for name in system[-1:]} if named == "3" else {named}
    return found
