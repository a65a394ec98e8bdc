"""Multimodal torch models as bundles for edge devices. Importing this loads nothing else: names arrive on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmedge.core.bundle import Bundle
    from mmedge.core.recipe import Recipe
    from mmedge.core.report import Report
    from mmedge.errors import MmedgeError
    from mmedge.export.build import export
    from mmedge.media.video import read_video
    from mmedge.runtime.encoder import load_encoder
    from mmedge.runtime.pipeline import load

__version__ = "0.1.0"
__all__ = ["Bundle", "MmedgeError", "Recipe", "Report", "__version__", "export", "load", "load_encoder", "read_video"]

_HOMES = {
    "load": "mmedge.runtime.pipeline",
    "load_encoder": "mmedge.runtime.encoder",
    "read_video": "mmedge.media.video",
    "Bundle": "mmedge.core.bundle",
    "Recipe": "mmedge.core.recipe",
    "Report": "mmedge.core.report",
    "MmedgeError": "mmedge.errors",
}


def __getattr__(name: str) -> Any:
    if name == "export":  # the package itself, which can be called: see its docstring
        return import_module("mmedge.export")
    if name not in _HOMES:
        raise AttributeError(f"module `mmedge` has no attribute `{name}`")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
