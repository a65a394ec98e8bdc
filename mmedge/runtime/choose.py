"""Which engine runs each graph here: the target's, or where that cannot be used the next one, said aloud."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from typing import NamedTuple, TypeAlias

from mmedge.core import find
from mmedge.core.backend import Backend, Session
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.names import shown
from mmedge.core.target import Target
from mmedge.errors import BackendError, MmedgeError, ResourceError
from mmedge.runtime.beside import beside_each_other
from mmedge.runtime.ready import entry, refused

_LONGEST = 160
_log = logging.getLogger(__name__)

Opener: TypeAlias = Callable[[Graph, Backend], Session]

_Tried: TypeAlias = dict[tuple[str, str], MmedgeError]
"""Role and engine to what happened when a graph of the role was opened."""


class _Found(NamedTuple):
    backend: Backend
    passed_over: dict[str, MmedgeError]
    """Engines that come before, and why they cannot be used."""


class _Failure(NamedTuple):
    graph: Graph
    error: MmedgeError


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
    if explicit:
        return dict.fromkeys((graph.component for graph in bundle.manifest.graphs), find.backend(explicit))
    found = _search(bundle, {}, retry)
    if aloud:
        _tell(bundle, found, set())
    return _by_component(bundle, found)


def open_chosen(bundle: Bundle, explicit: str | None, opener: Opener) -> tuple[dict[str, Backend], dict[str, Session]]:
    """What `choose` says, and what ``opener`` makes of each graph. An engine that refuses one of them, or for which
    there is too little memory now, is passed over for its role, aloud; the next start tries it again.

    Raises:
        BackendError: there is no other engine left, or ``explicit`` wants no other.
        ResourceError: likewise.
    """
    if explicit:
        engines = choose(bundle, explicit)
        opened = _open_all(bundle, engines, opener)
        if isinstance(opened, _Failure):
            raise opened.error
        return engines, opened
    return _open_first(bundle, opener)


def candidates(target: Target, role: str) -> tuple[str, ...]:
    """Names of engines in the order they are tried."""
    return tuple(dict.fromkeys((target.backends[role], *target.fallback)))


def _open_first(bundle: Bundle, opener: Opener) -> tuple[dict[str, Backend], dict[str, Session]]:
    tried: _Tried = {}
    told: set[tuple[str, ...]] = set()
    found = _search(bundle, tried)
    while True:
        _tell(bundle, found, told)
        engines = _by_component(bundle, found)
        opened = _open_all(bundle, engines, opener)
        if not isinstance(opened, _Failure):
            return engines, opened
        role, engine = opened.graph.role, engines[opened.graph.component].name
        tried[role, engine] = _advised(bundle, opened.error)
        if all((role, name) in tried for name in candidates(bundle.manifest.target, role)):
            raise opened.error
        try:
            found = _search(bundle, tried)
        except MmedgeError as none_left:
            raise opened.error from none_left


def _open_all(bundle: Bundle, engines: dict[str, Backend], opener: Opener) -> dict[str, Session] | _Failure:
    """All sessions, or the first that an engine or its memory refuses, with nothing left open.

    Engines open their graphs beside each other: one reads what another packs, and no one keeps all cores busy. With one
    that is tied to a device they go one by one: its build takes minutes, which a signal must end at once, and counts as
    its own all memory that the board loses meanwhile.
    """
    graphs = bundle.manifest.graphs
    sessions: dict[str, Session] = {}

    def open_those_of(name: str) -> _Failure | None:
        for graph in graphs:
            if engines[graph.component].name == name:
                try:
                    sessions[graph.component] = opener(graph, engines[graph.component])
                except (BackendError, ResourceError) as error:
                    return _Failure(graph, error)
        return None

    names = list(dict.fromkeys(engines[graph.component].name for graph in graphs))
    with ExitStack() as unless_all:
        unless_all.callback(_close, sessions)
        if any(engine.tied_to() for engine in engines.values()):
            failures = list(islice(filter(None, map(open_those_of, names)), 1))
        else:
            failures = list(filter(None, beside_each_other(open_those_of, names)))
        if failures:
            return min(failures, key=lambda failure: graphs.index(failure.graph))
        unless_all.pop_all()
    return {graph.component: sessions[graph.component] for graph in graphs}


def _close(sessions: dict[str, Session]) -> None:
    for session in sessions.values():
        session.close()


def _advised(bundle: Bundle, error: MmedgeError) -> MmedgeError:
    """The same with what helps against it here; what the engine advises helps who builds the bundle."""
    what = "with more memory free, " if isinstance(error, ResourceError) else ""
    return type(error)(error.message, hint=f"{what}`mmedge compile {bundle.path}` tries again")


def _by_component(bundle: Bundle, found: dict[str, _Found]) -> dict[str, Backend]:
    return {graph.component: found[graph.role].backend for graph in bundle.manifest.graphs}


def _search(bundle: Bundle, tried: _Tried, retry: bool = False) -> dict[str, _Found]:
    """By role."""
    _check_device(bundle.manifest.target)
    roles = dict.fromkeys(graph.role for graph in bundle.manifest.graphs)
    return {role: _first(bundle, role, tried, retry) for role in roles}


def _check_device(target: Target) -> None:
    """No engine reads this option yet: what would run on the CPU must not be taken for something else."""
    if (device := target.options.get("device", "CPU")) != "CPU":
        engine = target.backends["tower"]
        raise BackendError(
            f"this version cannot run on the {device} of `{target.name}`",
            hint=f"run it on the CPU with --backend {engine}",
        )


def _first(bundle: Bundle, role: str, tried: _Tried, retry: bool) -> _Found:
    names = candidates(bundle.manifest.target, role)
    graphs = [graph for graph in bundle.manifest.graphs if graph.role == role]
    problems: dict[str, MmedgeError] = {}
    for name in names:
        try:
            if failed := tried.get((role, name)):
                raise failed
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


def _tell(bundle: Bundle, found: dict[str, _Found], told: set[tuple[str, ...]]) -> None:
    """One line for every engine that was passed over, however many graphs it was to run, without those ``told``."""
    lines: dict[tuple[str, str], tuple[list[str], str]] = {}
    for graph in bundle.manifest.graphs:
        chosen = found[graph.role]
        for name, problem in chosen.passed_over.items():
            if (what := (graph.component, chosen.backend.name, name)) not in told:
                told.add(what)
                lines.setdefault(what[1:], ([], _short(problem)))[0].append(f"`{graph.component}`")
    for (instead, name), (components, why) in lines.items():
        _log.warning("%s runs %s instead of %s: %s", instead, ", ".join(components), name, why)


def _short(problem: MmedgeError) -> str:
    """What comes first of what an engine says, which may be a page, and what to do."""
    sentence = problem.message.partition("; ")[0].partition(". ")[0]
    return shown(sentence, _LONGEST) + (f"; {problem.hint}" if problem.hint else "")


def _none(target: Target, problems: dict[str, MmedgeError]) -> BackendError:
    told = "; ".join(f"{name}: {problem.message}" for name, problem in problems.items())
    first = next(iter(problems.values()))
    return BackendError(f"no engine of `{target.name}` can be used here ({told})", hint=first.hint)
