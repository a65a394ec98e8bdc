"""Puts the doubles where mmedge looks for the real things: in this process, or in the processes that it starts.

with installed("10.3") as double:            # in this process
    ...
subprocess.run(..., env=environment("10.3"))  # in another
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from mmedge_doubles.cudart import Cudart
from mmedge_doubles.settings import Settings, from_environment, to_environment
from mmedge_doubles.world import World

FOLDER = Path(__file__).resolve().parent.parent


@dataclass
class Double:
    """Both doubles, which know each other."""

    settings: Settings
    cudart: Cudart
    world: World

    @property
    def tensorrt(self) -> ModuleType:
        return self.world.module

    @property
    def executions(self) -> list[int]:
        """Index of the profile of every execution that was done."""
        return self.world.executions


def make(settings: Settings) -> Double:
    from mmedge_doubles.api import make_world

    cudart = Cudart(settings.compute_capability, settings.memory_mb, settings.devices)
    return Double(settings, cudart, make_world(settings, cudart))


@cache
def double_of_this_process() -> Double:
    """As the environment says; for `path/tensorrt.py` and `path/sitecustomize.py`."""
    return make(from_environment())


def environment(version: str = "10.3", **settings: object) -> dict[str, str]:
    """A copy of this process's environment in which Python finds the doubles."""
    paths = [str(FOLDER / "path"), str(FOLDER), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **to_environment(Settings(version, **settings)),  # type: ignore[arg-type]
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


@contextmanager
def installed(version: str = "10.3", **settings: object) -> Iterator[Double]:
    """In this process, and in the processes that it starts meanwhile."""
    double = make(Settings(version, **settings))  # type: ignore[arg-type]
    kept, before, path = sys.modules.get("tensorrt"), dict(os.environ), sys.path[:]
    os.environ.update(environment(version, **settings))
    sys.path.append(str(FOLDER / "path"))  # mmedge's own children find what this process would find
    restore = serve_cudart(lambda: double.cudart)
    sys.modules["tensorrt"] = double.tensorrt
    forget()
    try:
        yield double
    finally:
        forget()
        restore()
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(before)
        del sys.modules["tensorrt"]
        if kept is not None:
            sys.modules["tensorrt"] = kept


def serve_cudart(library: Callable[[], Cudart]) -> Callable[[], None]:
    """Answer requests for libcudart; returns what ends that."""
    loader = ctypes.cdll
    before = vars(loader).get("LoadLibrary")

    def load(name: str) -> object:
        return library() if "libcudart" in str(name) else type(loader).LoadLibrary(loader, name)

    loader.LoadLibrary = load  # type: ignore[method-assign]

    def restore() -> None:
        del loader.LoadLibrary  # the method of the class is there again
        if before is not None:
            loader.LoadLibrary = before  # type: ignore[method-assign]

    return restore


def forget() -> None:
    """Let mmedge look for its libraries again."""
    from mmedge.backends import _cuda, _tensorrt

    for cached in (_cuda.cuda, _tensorrt.library, _tensorrt.log):
        cached.cache_clear()
