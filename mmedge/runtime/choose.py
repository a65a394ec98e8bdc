"""Which engine runs each graph here: the target's, or where that cannot be used the next one, said aloud."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mmedge.core import find
from mmedge.core.backend import Backend
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.target import Target
from mmedge.errors import BackendError, MmedgeError
from mmedge.runtime.ready import entry, refused

_log = logging.getLogger(__name__)


def choose(bundle: Bundle, explicit: str | None = None, *, retry: bool = False) -> dict[str, Backend]:
    """The backend of each component: ``explicit`` for all, or the first engine of the target that can be used here.

    An engine cannot be used where it is missing, or where `mmedge compile` refused what it made of a graph of the
    bundle, unless this is to ``retry``. All graphs of a role are run by the same engine.

    Raises:
        UsageError: no backend is called ``explicit``.
        BackendError: none of the target's engines can be used here.
    """
    manifest = bundle.manifest
    if explicit:
        backend = find.backend(explicit)
        return {graph.component: backend for graph in manifest.graphs}
    chosen = {role: _first(bundle, role, retry) for role in dict.fromkeys(graph.role for graph in manifest.graphs)}
    return {graph.component: chosen[graph.role] for graph in manifest.graphs}


def candidates(target: Target, role: str) -> tuple[str, ...]:
    """Names of engines in the order they are tried."""
    return tuple(dict.fromkeys((target.backends[role], *target.fallback)))


def _first(bundle: Bundle, role: str, retry: bool) -> Backend:
    names = candidates(bundle.manifest.target, role)
    graphs = [graph for graph in bundle.manifest.graphs if graph.role == role]
    problems: dict[str, MmedgeError] = {}
    for name in names:
        try:
            backend = find.engine(name)
            _check_usable(bundle, graphs, backend, retry)
        except MmedgeError as problem:
            if len(names) == 1:
                raise
            problems[name] = problem
            continue
        for line in _told(problems, name, [graph.component for graph in graphs]):
            _log.warning("%s", line)
        return backend
    raise _none(bundle.manifest.target, problems)


def _check_usable(bundle: Bundle, graphs: list[Graph], backend: Backend, retry: bool) -> None:
    """
    Raises:
        BackendError: the engine is missing, or has nothing to run on.
        QualityError: something it made of these graphs was refused.
    """
    backend.version()
    for graph in graphs:
        kept = entry(bundle, graph, backend)
        if kept and not retry and (reason := kept.refusal()):
            raise refused(kept, reason)


def _told(problems: dict[str, MmedgeError], instead: str, components: list[str]) -> Iterator[str]:
    runs = ", ".join(f"`{component}`" for component in components)
    for name, problem in problems.items():
        todo = f" ({problem.hint})" if problem.hint else ""
        yield f"{name} cannot run {runs} here, {instead} does: {problem.message}{todo}"


def _none(target: Target, problems: dict[str, MmedgeError]) -> BackendError:
    told = "; ".join(f"{name}: {problem.message}" for name, problem in problems.items())
    first = next(iter(problems.values()))
    return BackendError(f"no engine of `{target.name}` can be used here ({told})", hint=first.hint)
