"""What this interpreter has: its packages, the engines that it can use, and the libraries that it finds."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from msgspec import Struct

from mmedge.core import find
from mmedge.errors import MmedgeError

PACKAGES = ("mmedge", "numpy", "msgspec", "pillow", "tokenizers", "onnxruntime", "onnxruntime-gpu", "openvino")
_LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10", "libnvinfer.so.8")


class EngineState(Struct, frozen=True):
    """An engine as it is found here."""

    name: str
    version: str
    """Of its library; empty if that is not found."""
    tied_to: dict[str, str]
    """What its compiled graphs depend on."""
    problem: str
    """Why it cannot be used; empty if it can."""
    hint: str

    @property
    def usable(self) -> bool:
        return not self.problem


class Interpreter(Struct, frozen=True):
    """This Python and what it sees."""

    version: str
    executable: str
    prefix: str
    virtual: bool
    """A virtual environment."""
    sees_system: bool
    """Whether it sees the packages of the system's own Python of the same version."""
    packages: dict[str, str]
    """Version of what is installed of `PACKAGES`."""
    engines: tuple[EngineState, ...]
    libnvinfer: str
    """Version of the TensorRT library that is found; empty if none is."""
    trtexec: str
    """Where ``$TRTEXEC`` or ``$PATH`` lead; empty if nowhere."""
    free_disk_mb: int
    """In the current folder."""


def this_interpreter() -> Interpreter:
    """Look; engines are imported, one after the other."""
    virtual = sys.prefix != sys.base_prefix
    return Interpreter(
        version=platform.python_version(),
        executable=sys.executable,
        prefix=sys.prefix,
        virtual=virtual,
        sees_system=not virtual or _sees_system(Path(sys.prefix)),
        packages=dict(_packages()),
        engines=tuple(map(engine_state, find.names("backends"))),
        libnvinfer=_libnvinfer(),
        trtexec=os.environ.get("TRTEXEC") or shutil.which("trtexec") or "",
        free_disk_mb=shutil.disk_usage(".").free >> 20,
    )


def engine_state(name: str) -> EngineState:
    """An engine asked whether it can be used."""
    backend, version = find.backend(name), ""
    try:
        version = backend.version()
        return EngineState(name, version, backend.tied_to(), "", "")
    except MmedgeError as problem:
        return EngineState(name, version, {}, problem.message, problem.hint or "")


def infer_version(number: int) -> str:
    """What `getInferLibVersion` answers, as people write it: 8602 is 8.6.2, 101303 is 10.13.3."""
    major, rest = divmod(number, 10_000 if number >= 10_000 else 1_000)
    return f"{major}.{rest // 100}.{rest % 100}"


def _sees_system(prefix: Path) -> bool:
    try:
        lines = (prefix / "pyvenv.cfg").read_text().lower().splitlines()
    except OSError:
        return False
    return "include-system-site-packages=true" in (line.replace(" ", "") for line in lines)


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _libnvinfer() -> str:
    for name in _LIBRARIES:
        try:
            return infer_version(ctypes.CDLL(name).getInferLibVersion())
        except (OSError, AttributeError):
            continue
    return ""
