"""What an engine says when it fails, as one line of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from mmedge.core.manifest import Graph
from mmedge.core.names import shown
from mmedge.errors import BackendError, InputError

_LONGEST = 300
_NOISE = ("Exception from ", "Check '", "FrontEnd API failed")
"""How lines begin that only say where in the engine's own code something was noticed."""


@contextmanager
def told_as_ours(failure: str, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn the engine's exceptions of ``kinds`` into a BackendError; ``failure`` says what cannot be done to what."""
    try:
        yield
    except kinds as error:
        raise BackendError(f"{failure}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The telling part of a foreign exception's text on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    return shown(" ".join(telling or lines) or type(error).__name__, _LONGEST)


def check_edges(graph: Graph, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Compare the names that the engine found in the file with those that the manifest promises.

    Raises:
        BackendError: naming the first that differs.
    """
    cache = graph.cache
    promised = {
        "input": {port.name for port in (*graph.inputs, *((*cache.past(), *cache.steering()) if cache else ()))},
        "output": {port.name for port in (*graph.outputs, *(cache.present() if cache else ()))},
    }
    for kind, found in (("input", set(inputs)), ("output", set(outputs))):
        if missing := sorted(promised[kind] - found):
            raise BackendError(f"the file of `{graph.component}` has no {kind} `{missing[0]}`")
        if unknown := sorted(found - promised[kind]):
            raise BackendError(f"the file of `{graph.component}` has an {kind} `{unknown[0]}` that nobody announced")


def chosen(graph: Graph, outputs: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the outputs that a run is asked for: all, or those in ``outputs``.

    Raises:
        InputError: one of them is no output.
    """
    names = tuple(port.name for port in graph.outputs)
    if outputs is None:
        return names
    if unknown := sorted(set(outputs) - set(names)):
        raise InputError(f"`{graph.component}` has no output `{unknown[0]}`", hint=f"it has {', '.join(names)}")
    return tuple(outputs)


def closed(component: str) -> BackendError:
    """For a session that is asked to run after it was closed."""
    return BackendError(f"the session of `{component}` is closed")
