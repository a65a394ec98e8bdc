"""Find a family, a backend, a target or a recipe by name: our file, or an installed plugin (entry point)."""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mmedge.core.target import Target
from mmedge.errors import BackendError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from mmedge.core.backend import Backend
    from mmedge.core.family import Family

PACKAGE = Path(__file__).resolve().parent.parent

UNOFFERED = {"replay"}
"""Found by those who know them, but no choice for a user: it computes nothing."""


def family(name: str) -> Family:
    """The family of a checkpoint's ``model_type``."""
    return _find("families", name, "FAMILY")  # type: ignore[no-any-return]


def backend(name: str) -> Backend:
    """The backend called ``name``; its library is imported only when it compiles or opens a graph."""
    return _find("backends", name, "BACKEND")  # type: ignore[no-any-return]


def engine(name: str, option: str = "--backend") -> Backend:
    """The backend that a bundle names; if this version lacks it, the user made no mistake.

    Raises:
        BackendError: there is none; ``option`` is how to choose another.
    """
    try:
        return backend(name)
    except UsageError as unknown:
        hint = f"run it here with {option} onnxruntime"
        raise BackendError(f"this version has no engine `{name}`", hint=hint) from unknown


def names(kind: str) -> tuple[str, ...]:
    """All names of a kind that a user can choose from: ``families`` or ``backends``."""
    return tuple(sorted({*_files(kind), *_plugins(kind)} - UNOFFERED))


def targets() -> tuple[Target, ...]:
    """Every target that ships with mmedge, by name."""
    return tuple(_read_target(path) for path in sorted((PACKAGE / "targets").glob("*.toml")))


def target(name: str) -> Target:
    """A target by its name or alias, or read from a ``.toml`` file of the user's own."""
    if name.endswith(".toml"):
        return _read_target(Path(name))
    known = {alias: target for target in targets() for alias in (target.name, *target.aliases)}
    if name not in known:
        raise _unknown("target", name, tuple(known))
    return known[name]


def data(kind: str) -> Path:
    """The folder ``recipes`` or ``calib``: inside an installed wheel, or at the top of a checkout."""
    inside = PACKAGE / kind
    return inside if inside.is_dir() else PACKAGE.parent / kind


def _find(kind: str, name: str, attribute: str) -> Any:
    if name in _files(kind):
        return getattr(importlib.import_module(f"mmedge.{kind}.{name}"), attribute)
    if name in (plugins := _plugins(kind)):
        return plugins[name].load()
    raise _unknown({"families": "family", "backends": "backend"}[kind], name, names(kind))


def _files(kind: str) -> set[str]:
    """Modules of the folder; one that starts with an underscore is shared by several and is no entry."""
    spec = find_spec(f"mmedge.{kind}")
    places = spec.submodule_search_locations if spec else None
    return {module.name for module in pkgutil.iter_modules(places or []) if not module.name.startswith("_")}


def _plugins(kind: str) -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # a seventh of what a start imports, for plugins alone

    return {entry.name: entry for entry in entry_points(group=f"mmedge.{kind}")}


def _unknown(what: str, name: str, known: tuple[str, ...]) -> UsageError:
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(sorted(known))}"
    return UsageError(f"no {what} is called `{name}`", hint=hint)


def _read_target(path: Path) -> Target:
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Target)
    except OSError as error:
        raise UsageError(f"cannot read the target `{path}`: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"target `{path}`: {error}") from error
