"""Everything that a bundle needs on this device made ahead: its graphs compiled one after the other, and then asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct
from msgspec.structs import replace

from mmedge.core import board
from mmedge.core.backend import Backend, Options
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.machine import free_memory
from mmedge.errors import BackendError
from mmedge.runtime.asking import check_samples, mark, refuse, replay
from mmedge.runtime.building import BuildKilled, Moment, build_apart
from mmedge.runtime.choose import choose
from mmedge.runtime.device import Device, this_device
from mmedge.runtime.ready import Entry, entry, size_of
from mmedge.runtime.verify import Verification

TIMES_WEIGHTS = 4
"""Peak of a build as a multiple of the graph with its weights: the file, the builder's copies and the engine. Reports
of TensorRT on Jetson say three to four times."""
_MIB = 1 << 20


class Here(Struct, frozen=True):
    """What compiled graphs are made for."""

    device: Device
    l4t: str
    """Jetson Linux; empty elsewhere."""
    jetpack: str
    engines: dict[str, dict[str, str]]
    """Version, and what else its compiled graphs are tied to, by engine."""
    warnings: tuple[str, ...]


class Step(Struct, frozen=True):
    """What is to be done about one graph."""

    component: str
    engine: str
    state: Literal["as it is", "ready", "to compile"]
    folder: str
    """Where it is or will be; the ONNX file of what is opened as it is."""
    expected_mb: float
    """Memory that compiling may take, MiB, as a rule of thumb; 0 where there is nothing to compile."""
    refused: str
    """Why an earlier one was refused."""


class Made(Struct, frozen=True):
    """What was done about one graph."""

    component: str
    engine: str
    state: Literal["as it is", "kept", "compiled"]
    path: str
    seconds: float = 0.0
    peak_mb: float = 0.0
    """Most memory that compiling took, MiB."""


class Compilation(Struct, frozen=True):
    """A bundle made ready, and what the replayed samples say of it."""

    here: Here
    made: tuple[Made, ...]
    verification: Verification
    refused: dict[str, str]
    """Component to why what was compiled of it was removed."""

    @property
    def passed(self) -> bool:
        return self.verification.passed


class Watcher(Protocol):
    """Is told how it goes."""

    def warn(self, warning: str) -> None: ...
    def begin(self, step: Step) -> None: ...
    def moment(self, step: Step, moment: Moment) -> None: ...
    def end(self, made: Made) -> None: ...
    def replay(self, line: str) -> None: ...


def steps(bundle: Bundle, backend: str | None = None) -> tuple[Here, tuple[Step, ...]]:
    """What `compile_bundle` would do, without doing any of it.

    Raises:
        UsageError: no backend has this name.
        BackendError: none of the target's engines can be used here.
        BundleError: there is nothing to replay.
    """
    check_samples(bundle)
    engines = choose(bundle, backend, retry=True)
    found = tuple(_step(bundle, graph, engines[graph.component]) for graph in bundle.manifest.graphs)
    return _here(bundle, engines, found), found


def compile_bundle(
    bundle: Bundle, watcher: Watcher, *, backend: str | None = None, builder_mb: int | None = None, threads: int = 0
) -> Compilation:
    """Compile what is not ready, one graph at a time in a process of its own, and replay the golden samples.

    Nothing is opened before everything is built: what is open takes memory that a build may need. What disagrees with
    the samples is removed, and not made again until this is called again. ``builder_mb`` is how much memory a build may
    take, MiB, instead of what the target says; 0 means all there is.

    Raises:
        UsageError: no backend has this name.
        BackendError: none of the target's engines can be used, or one refuses a graph.
        BundleError: a file is not what the manifest says, or there is nothing to replay.
        ResourceError: a build takes too much memory, or the disk is full.
    """
    check_samples(bundle)
    engines = choose(bundle, backend, retry=True, aloud=False)
    here = _here(bundle, engines, [_step(bundle, graph, engines[graph.component]) for graph in bundle.manifest.graphs])
    for warning in here.warnings:
        watcher.warn(warning)
    limited = bundle if builder_mb is None else _with_options(bundle, {"builder_mb": builder_mb})
    pairs = [(graph, engines[graph.component]) for graph in bundle.manifest.graphs]
    built = [_make(limited, graph, engine, watcher) for graph, engine in pairs]
    made = tuple(
        _opened(limited, graph, engine, each, watcher) for (graph, engine), each in zip(pairs, built, strict=True)
    )
    found = replay(bundle, engines, threads, watcher.replay)
    refused = refuse(bundle, engines, found)
    mark(bundle, engines, found, refused)
    return Compilation(here, made, found, refused)


def _step(bundle: Bundle, graph: Graph, backend: Backend) -> Step:
    kept = entry(bundle, graph, backend)
    if not kept:
        return Step(graph.component, backend.name, "as it is", str(bundle.path / graph.file), 0.0, "")
    artifact = kept.artifact()
    workspace = float(bundle.manifest.target.options.get("workspace_mb", 0))
    expected = 0.0 if artifact else TIMES_WEIGHTS * size_of(bundle, graph) / _MIB + workspace
    folder = artifact.parent if artifact else kept.folder()
    state: Literal["ready", "to compile"] = "ready" if artifact else "to compile"
    refusal = kept.refusal()
    return Step(graph.component, backend.name, state, str(folder), expected, refusal.reason if refusal else "")


def _here(bundle: Bundle, engines: dict[str, Backend], planned: Sequence[Step]) -> Here:
    used = {engine.name: engine for engine in engines.values()}
    release = board.l4t()
    return Here(
        device=this_device(),
        l4t=release,
        jetpack=board.jetpack(release),
        engines={name: {"version": engine.version(), **engine.tied_to()} for name, engine in used.items()},
        warnings=(*_unlike(bundle, used), *_tight(planned, free_memory() / _MIB)),
    )


def _unlike(bundle: Bundle, engines: dict[str, Backend]) -> list[str]:
    """Engines of versions that no stack of the target has: nobody checked the graphs against them."""
    found = []
    for name, engine in engines.items():
        checked = [version for stack in bundle.manifest.target.stacks if (version := getattr(stack, name, ""))]
        version = engine.version()
        if checked and not any(f"{version}.".startswith(f"{each}.") for each in checked):
            known = " and ".join(dict.fromkeys(checked))
            found.append(f"this bundle was checked for {name} {known}, here is {version}")
    return found


def _tight(planned: Sequence[Step], free_mb: float) -> list[str]:
    """The graph that takes most, if there may be too little memory for it."""
    most = max(planned, key=lambda step: step.expected_mb)
    if most.expected_mb <= free_mb:
        return []
    needs = f"compiling `{most.component}` may take about {most.expected_mb:,.0f} MiB"
    return [f"{needs}, {free_mb:,.0f} MiB are free: end what else runs"]


def _make(bundle: Bundle, graph: Graph, backend: Backend, watcher: Watcher) -> Made:
    step = _step(bundle, graph, backend)
    kept = entry(bundle, graph, backend)
    if not kept:
        made = Made(graph.component, backend.name, "as it is", str(bundle.file(graph.file)))
    elif artifact := kept.artifact():
        kept.forgive()
        made = Made(graph.component, backend.name, "kept", str(artifact))
    else:
        kept.forgive()
        watcher.begin(step)
        made = _compile(kept, step, watcher)
    watcher.end(made)
    return made


def _compile(kept: Entry, step: Step, watcher: Watcher) -> Made:
    last = Moment(0.0, 0.0, 0.0, None)

    def watch(moment: Moment) -> None:
        nonlocal last
        last = moment
        watcher.moment(step, moment)

    def build(backend: Backend, graph: Graph, source: Path, output: Path, options: Options) -> Path:
        return build_apart(backend, graph, source, output, options, watch=watch)

    try:
        artifact = kept.make(build)
    except BuildKilled:
        raise
    except BackendError as error:
        kept.refuse(error.message, wrong=False)
        raise
    return Made(step.component, step.engine, "compiled", str(artifact), last.seconds, last.peak_mb)


def _opened(bundle: Bundle, graph: Graph, backend: Backend, made: Made, watcher: Watcher) -> Made:
    """What was made, once it is known that it can be opened; one that was kept and cannot be is compiled again.

    Raises:
        BackendError: it cannot be opened although it was compiled now; every later start falls back.
    """
    kept = entry(bundle, graph, backend)
    if not kept:
        return made
    try:
        backend.open(graph, Path(made.path), options=bundle.manifest.target.options).close()
        return made
    except BackendError as error:
        if made.state == "kept":
            kept.discard()
        if made.state != "kept" or kept.artifact():  # which is someone else's, and stays
            kept.refuse(error.message, wrong=False)
            raise
        watcher.warn(f"what was kept of `{graph.component}` cannot be opened, compiling it again: {error.message}")
    return _opened(bundle, graph, backend, _make(bundle, graph, backend, watcher), watcher)


def _with_options(bundle: Bundle, options: Options) -> Bundle:
    """With other options of the target; its digest, and so what it is compiled to, stays the same."""
    target = bundle.manifest.target
    changed = replace(target, options={**target.options, **options})
    return dataclasses.replace(bundle, manifest=replace(bundle.manifest, target=changed))
