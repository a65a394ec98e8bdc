"""What building and running with TensorRT share: the library, what it logs, its types."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from mmedge.backends._engine import reason
from mmedge.core.manifest import Graph
from mmedge.core.names import shown
from mmedge.core.ports import Port, Span
from mmedge.errors import BackendError, MmedgeError, ResourceError
from mmedge.needs import needs

_log = logging.getLogger(__name__)
_LONGEST = 600

_HINT = (
    "on a Jetson it comes with JetPack, for the system's own Python (`sudo apt install python3-libnvinfer`), not with "
    "pip; a virtual environment sees it if it was made with `python3 -m venv --system-site-packages`"
)

_NO_MEMORY = re.compile(
    r"out ?of ?memory|requested (amount of gpu memory|size was)|cuda error 2\b|could not be allocated"
    r"|insufficient (\w+ )?memory|bad_alloc",
    re.IGNORECASE,
)
"""How TensorRT says that there was too little memory. Which of its allocators it was decides how."""

_NUMPY = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""By TensorRT's names. Its own `nptype` fails with the numpy of today in some versions."""


@cache
def library() -> Any:
    """The module ``tensorrt``.

    Raises:
        BackendError: it is not installed, or misses a library that it needs.
    """
    try:
        with needs("tensorrt", _HINT):
            import tensorrt
    except (ImportError, OSError) as error:
        raise BackendError(f"the package `tensorrt` cannot be loaded: {reason(error)}", hint=_HINT) from error
    return tensorrt


@cache
def log() -> Any:
    """What TensorRT reports to: one for the process, as it keeps the first that it is given."""
    trt = library()
    levels = {trt.Logger.INTERNAL_ERROR: logging.ERROR, trt.Logger.ERROR: logging.ERROR}

    class Log(trt.ILogger):  # type: ignore[misc, name-defined]
        """Collects errors until they are told; everything is in Python's log for those who ask for it."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if levels.get(severity) == logging.ERROR:
                self.errors.append(" ".join(message.split()))
            _log.debug("%s", message)

    return Log()


def failure(what: str, because: Iterable[str] = (), hint: str | None = None) -> MmedgeError:
    """The error for something that TensorRT refused: it says so with None or False, and logs the reason."""
    reasons = [*because, *log().errors]
    log().errors.clear()
    whole = "; ".join(dict.fromkeys(reasons)) or "it does not say why"
    told = f"tensorrt cannot {what}: {shown(whole, _LONGEST)}"
    if _NO_MEMORY.search(whole):
        return ResourceError(told, hint="close other programs, or export for a target with a smaller `workspace_mb`")
    return BackendError(told, hint=hint)


def start(kind: Any, what: str) -> Any:
    """A builder or a runtime. Without a device their constructors give None, which is a TypeError in Python."""
    log().errors.clear()
    try:
        return kind(log())
    except TypeError as error:
        raise failure(what) from error


def must(result: Any, failed: Callable[[], MmedgeError]) -> Any:
    """The result of a call that answers None or False when it fails."""
    if result is None or result is False:
        raise failed()
    log().errors.clear()
    return result


def numpy_type(kind: Any, name: str) -> np.dtype:
    """The dtype of a tensor as the engine has it.

    Raises:
        BackendError: numpy has no such type.
    """
    if kind.name not in _NUMPY:
        raise BackendError(f"the engine wants `{name}` as {kind.name}, which numpy does not know")
    return np.dtype(_NUMPY[kind.name])


def inputs_of(graph: Graph) -> tuple[Port, ...]:
    """Every input of the engine, also those that the session makes."""
    cache = graph.cache
    return (*graph.inputs, *(cache.past() if cache else ()), *(cache.steering() if cache else ()))


def varying(graph: Graph) -> tuple[Port, ...]:
    """The inputs that have a size that varies."""
    return tuple(port for port in inputs_of(graph) if any(isinstance(size, str) for size in port.shape))


def profiles_of(graph: Graph) -> tuple[dict[str, Span], ...]:
    """The ranges that its engine is built for; none if nothing varies: an engine has a profile of its own then."""
    return graph.profiles if varying(graph) else ()


def spell(spans: dict[str, Span]) -> str:
    """One set of ranges for a message."""
    return ", ".join(f"{word} {span.smallest} to {span.largest}" for word, span in spans.items())


def check_cache(graph: Graph) -> None:
    """Refuse a cache that grows, and a decoder without ranges for its lengths.

    Raises:
        BackendError: engines are built for sizes.
    """
    if graph.cache and not graph.cache.capacity:
        raise BackendError(
            f"tensorrt cannot keep the cache of `{graph.component}`: it grows at every step",
            hint="export for a target whose cache is of fixed length, such as `--target jetson`",
        )
    if graph.cache and not (graph.profiles and all("length" in spans for spans in graph.profiles)):
        raise BackendError(
            f"no range is given for the length of what `{graph.component}` reads",
            hint="export the model again with ranges for its sizes",
        )
