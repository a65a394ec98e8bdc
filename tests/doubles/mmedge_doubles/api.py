"""The module ``tensorrt`` of one version: exactly the classes and members that it has, by the table of mmedge.

Members that the doubles do not act out are there too, and raise NotImplementedError when they are used.
"""

from __future__ import annotations

import enum
import json
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import Any

from mmedge_doubles import build, run
from mmedge_doubles.cudart import Cudart
from mmedge_doubles.settings import Settings
from mmedge_doubles.world import World

TABLE_OF = {"8.6": "8.6.1", "10.3": "10.3.0", "10.13": "10.13.3", "10.16": "10.16", "11.1": "11.1"}
FULL = {"8.6": "8.6.2", "10.3": "10.3.0", "10.13": "10.13.3", "10.16": "10.16.2", "11.1": "11.1.0"}
"""What `tensorrt.__version__` says."""

# The table was made from the C++ bindings by regular expressions, and misses what macros and Python code define. These
# are the few members that this concerns among those acted out; each is documented for every version from 8.6 to 11.
MISSED = {
    "ILogger": {"log"},  # from 10 on the table has it under Severity, the enum inside the class
}
ALWAYS = {"ILogger"}
"""Classes whose members the table misses altogether in some versions."""
NESTED = {"Severity": "ILogger"}
"""Enums that live inside a class, which also has their values (export_values)."""

ACTS: dict[str, type] = {**build.ACTS, **run.ACTS}


@cache
def table() -> dict[str, Any]:
    text = files("mmedge").joinpath("targets/data/tensorrt_python_api.json").read_text()
    return dict(json.loads(text)["classes"])


def members(name: str, version: str) -> dict[str, str]:
    """Kind by member of a class in a version; empty if it has no such class."""
    found = {
        member: entry["kind"]
        for member, entry in table().get(name, {}).items()
        if TABLE_OF[version] in entry["versions"]
    }
    return found


def make_world(settings: Settings, cudart: Cudart) -> World:
    """A module of its own for each pair of doubles."""
    module = ModuleType("tensorrt", "The double of TensorRT.")
    world = World(settings, cudart, module)
    module.__dict__["__version__"] = FULL[settings.version]
    for name in table():
        kinds = members(name, settings.version)
        if name == "<module>" or not (kinds or name in ALWAYS):
            continue
        made = _enum(name, kinds) if "enum" in kinds.values() else _class(name, kinds, world)
        if name not in NESTED:
            setattr(module, name, made)
        else:
            world.nested[name] = made
    for name, kind in members("<module>", settings.version).items():
        setattr(module, name, _stub(name, kind))
    for name, outer in NESTED.items():
        nested = world.nested[name]
        setattr(getattr(module, outer), name, nested)
        for entry in nested:
            setattr(getattr(module, outer), entry.name, entry)
    return world


class _Enum(enum.Enum):
    """As pybind11 makes them: an int when asked for one, and not otherwise."""

    def __int__(self) -> int:
        return int(self.value)

    __index__ = __int__


def _enum(name: str, kinds: dict[str, str]) -> Any:
    entries = [member for member, kind in kinds.items() if kind == "enum"]
    return _Enum(name, {member: index for index, member in enumerate(entries)})


def _class(name: str, kinds: dict[str, str], world: World) -> type:
    """A closed class: no member can be added to its objects, as pybind11 has it."""
    act = ACTS.get(name, object)
    allowed = {member for member in kinds if member not in ("__del__",)} | MISSED.get(name, set())
    body: dict[str, Any] = {"__slots__": (), "__module__": "tensorrt", "_world": world}
    for member in allowed:
        body[member] = vars(act)[member] if member in vars(act) else _stub(member, kinds.get(member, "def"))
    for member, value in vars(act).items():  # its own helpers, which no code outside may know
        if member.startswith("_") and member not in body and member not in ("__dict__", "__weakref__", "__module__"):
            body[member] = value
    if "__init__" not in vars(act):
        body["__init__"] = _no_constructor
    bases = {"IHostMemory": bytes, "Logger": getattr(world.module, "ILogger", _Base)}
    return type(name, (bases.get(name, _Base),), body)


class _Base:
    """What every object has: a state that only the double touches."""

    __slots__ = ("__weakref__", "_state")


def _no_constructor(self: object, *arguments: object, **named: object) -> None:
    raise TypeError(f"{type(self).__name__}: No constructor defined!")


def _stub(name: str, kind: str) -> Any:
    def unacted(*arguments: object, **named: object) -> None:
        raise NotImplementedError(f"the double does not act out `{name}`")

    unacted.__name__ = name
    return property(unacted, unacted) if kind.startswith("def_") and "static" not in kind else unacted
