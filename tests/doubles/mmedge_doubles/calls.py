"""Arguments as pybind11 takes them: what does not fit a signature is a TypeError."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from functools import wraps
from mmap import mmap
from typing import Any

from mmedge_doubles.cudart import Misuse


def takes(*kinds: str | type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Check the arguments after ``self``: a type, the name of a class of the module, ``dims``, ``buffer``
    or ``plain buffer``."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)

        @wraps(function)
        def checked(*arguments: Any, **named: Any) -> Any:
            bound = signature.bind(*arguments, **named)  # a TypeError for too few, too many or unknown names
            names = list(signature.parameters)[1:]
            for name, kind in zip(names, kinds, strict=True):
                if name in bound.arguments:
                    bound.arguments[name] = convert(bound.arguments[name], kind, function.__name__)
            return function(*bound.args, **bound.kwargs)

        return checked

    return decorate


def convert(value: Any, kind: str | type, where: str) -> Any:
    """The value as the C++ side gets it."""
    wrong = TypeError(f"{where}(): incompatible function arguments: {value!r} is no {kind}")
    if kind is int:
        try:
            return operator.index(value)
        except TypeError:
            raise wrong from None
    if kind == "dims":
        if isinstance(value, (str, bytes)):
            raise wrong
        return [convert(size, int, where) for size in value]
    if kind == "plain buffer" and not isinstance(value, (bytes, mmap)):
        raise Misuse(f"{where}() takes a buffer without Python's lock, which {type(value).__name__} cannot bear")
    if isinstance(kind, str) and kind.endswith("buffer"):
        return bytes(memoryview(value))
    if isinstance(kind, type):
        if not isinstance(value, kind):
            raise wrong
        return value
    optional, name = kind.endswith("?"), kind.rstrip("?")
    if value is None and optional:
        return None
    if name not in (base.__name__ for base in type(value).__mro__):
        raise wrong
    if not hasattr(value, "_state") and not hasattr(value, "value"):  # enums have none, and need none
        raise TypeError(f"{name}.__init__() must be called when overriding __init__")
    return value
