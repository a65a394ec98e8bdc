"""Which engine runs each graph here: the target's, or where that cannot be used the next one, said aloud."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from mmedge.core import find
from mmedge.core.backend import Backend
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.target import Target
from mmedge.errors import BackendError, MmedgeError
from mmedge.runtime.ready import entry, refused

_Opened = TypeVar("_Opened")
_log = logging.getLogger(__name__)


def choose(
    bundle: Bundle, explicit: str | None = None, *, retry: bool = False, aloud: bool = True
) -> dict[str, Backend]:
    """The backend of each component: ``explicit`` for all, or the first engine of the target that can be used here.

    An engine cannot be used where it is missing, or where `mmedge compile` refused what it made of a graph of the
    bundle, unless this is to ``retry``. All graphs of a role are run by the same engine. Not ``aloud`` is for those who
    open the bundle afterwards, which says it again.

    Raises:
        UsageError: no backend is called ``explicit``.
        BackendError: none of the target's engines can be used here, or none of this version computes on its device.
    """
    manifest = bundle.manifest
    if explicit:
        backend = find.backend(explicit)
        return {graph.component: backend for graph in manifest.graphs}
    _check_device(manifest.target)
    found = {role: _first(bundle, role, retry) for role in dict.fromkeys(graph.role for graph in manifest.graphs)}
    if aloud:
        _tell(bundle, found)
    return {graph.component: found[graph.role].backend for graph in manifest.graphs}


def _check_device(target: Target) -> None:
    """No engine reads this option yet: what would run on the CPU must not be taken for something else."""
    if (device := target.options.get("device", "CPU")) != "CPU":
        engine = target.backends["tower"]
        raise BackendError(
            f"this version cannot run on the {device} of `{target.name}`",
            hint=f"run it on the CPU with --backend {engine}",
        )


class _Found(NamedTuple):
    backend: Backend
    passed_over: dict[str, MmedgeError]
    """Engines that were tried before, and why they cannot be used."""


def open_chosen(
    bundle: Bundle, explicit: str | None, opener: Callable[[dict[str, Backend]], _Opened]
) -> tuple[dict[str, Backend], _Opened]:
    """What `choose` says and what ``opener`` makes of it; if an engine turns out to refuse a graph while it is being
    opened, with the next one.

    Raises:
        BackendError: there is no other engine left, or ``explicit`` wants no other.
    """
    chosen = choose(bundle, explicit)
    while True:
        try:
            return chosen, opener(chosen)
        except BackendError as error:
            try:
                others = choose(bundle, explicit)  # says aloud what was refused meanwhile
            except MmedgeError:
                raise error from None
            if _names(others) == _names(chosen):
                raise
            chosen = others


def _names(engines: dict[str, Backend]) -> dict[str, str]:
    return {component: engine.name for component, engine in engines.items()}


def candidates(target: Target, role: str) -> tuple[str, ...]:
    """Names of engines in the order they are tried."""
    return tuple(dict.fromkeys((target.backends[role], *target.fallback)))


def _first(bundle: Bundle, role: str, retry: bool) -> _Found:
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
        return _Found(backend, problems)
    raise _none(bundle.manifest.target, problems)


def _check_usable(bundle: Bundle, graphs: list[Graph], backend: Backend, retry: bool) -> None:
    """
    Raises:
        BackendError: the engine is missing, has nothing to run on, or refused one of these graphs.
        QualityError: something it made of these graphs was wrong.
    """
    backend.version()
    for graph in graphs:
        kept = entry(bundle, graph, backend)
        if kept and not retry and (refusal := kept.refusal()):
            raise refused(kept, refusal)


def _tell(bundle: Bundle, found: dict[str, _Found]) -> None:
    """Once for every engine that was passed over, however many graphs it was to run."""
    told: dict[tuple[str, str, str], list[str]] = {}
    for graph in bundle.manifest.graphs:
        chosen = found[graph.role]
        for name, problem in chosen.passed_over.items():
            why = problem.message + (f"; {problem.hint}" if problem.hint else "")
            told.setdefault((name, chosen.backend.name, why), []).append(f"`{graph.component}`")
    for (name, instead, why), components in told.items():
        _log.warning("%s runs %s instead of %s: %s", instead, ", ".join(components), name, why)


def _none(target: Target, problems: dict[str, MmedgeError]) -> BackendError:
    told = "; ".join(f"{name}: {problem.message}" for name, problem in problems.items())
    first = next(iter(problems.values()))
    return BackendError(f"no engine of `{target.name}` can be used here ({told})", hint=first.hint)
