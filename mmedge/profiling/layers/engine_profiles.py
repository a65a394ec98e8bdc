"""Time of every node that an engine runs, under the names of the ONNX graph.

Counting slows an engine down, so the same answers are also given without it: what each component takes then is what
the times of its nodes are scaled to, with what lies between them. The factor is told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from mmedge.core.backend import Backend, NodeTime, Profiling, Session
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.onnx_graph import OnnxGraph, read_graph
from mmedge.errors import BackendError
from mmedge.profiling.layers.costs import VIEWS
from mmedge.profiling.layers.recorded import STAGES, Recorded, Runner, engines_of, runs_in
from mmedge.runtime.ready import ready

LEAST_S = 1.0
"""Answers are repeated for so long, to see past the clock's microsecond."""
MOST_ROUNDS = 10

REPEATED = VIEWS | {"DequantizeLinear", "Cast"}

Say = Callable[[str], None]


class Kernel(NamedTuple):
    """What an engine runs for one or more nodes of the ONNX graph."""

    component: str
    node: str
    op: str
    onnx_names: tuple[str, ...]
    us: float
    """Of one answer."""


class EngineProfile(NamedTuple):
    """Where the time of an answer goes."""

    engines: dict[str, str]
    """By component."""
    kernels: tuple[Kernel, ...]
    factors: dict[str, float]
    """By component: what its nodes were counted at, times this, is what it takes when nobody counts."""
    stages_us: dict[tuple[str, str], float]
    """By component and stage, of one answer, when nobody counts."""
    steps: float
    """Of the decoder, on average."""


def engine_profile(
    bundle: Bundle, backend: str | None, threads: int, asked: Sequence[Recorded], say: Say = lambda line: None
) -> EngineProfile:
    """Of these answers, on average.

    Raises:
        BackendError: an engine is missing, refuses a graph, or cannot tell times of nodes.
    """
    graphs, engines = bundle.manifest.graphs, engines_of(bundle, backend)
    options = bundle.manifest.target.options
    for graph in graphs:
        if not isinstance(engine := engines[graph.component], Profiling):
            raise BackendError(
                f"{engine.name} does not tell the time of each node",
                hint="choose another engine with --backend; for TensorRT, read what trtexec exports with --trtexec",
            )
    names = {graph.component: engines[graph.component].name for graph in graphs}
    what = f"{bundle.path.name} on {'+'.join(dict.fromkeys(names.values()))}"
    say(f"{what}: time of the whole")
    counts = {stage: runs_in(stage, asked) for stage in STAGES}
    stages = stages_us(bundle, engines, threads, asked)
    say(f"{what}: time of each node")
    profiled = {
        graph.component: engines[graph.component].open_profiled(  # type: ignore[attr-defined]
            graph, bundle.file(graph.file), threads, options
        )
        for graph in graphs
    }
    with Runner(bundle, lambda graph: profiled[graph.component], graphs) as runner:
        _repeat(runner, asked)
        found = {
            name: kernels_of(name, [stage for stage, _ in each.runs], profiled[name].node_times(), counts)
            for name, each in runner.sessions.items()
        }
    return _scaled(bundle, graphs, names, found, stages, counts["decode_loop"])


def stages_us(
    bundle: Bundle, engines: Mapping[str, Backend], threads: int, asked: Sequence[Recorded]
) -> dict[tuple[str, str], float]:
    """What each component takes in each stage of an answer, microseconds, its looks and steps together."""
    options = bundle.manifest.target.options

    def opened(graph: Graph) -> Session:
        engine = engines[graph.component]
        return engine.open(graph, ready(bundle, graph, engine), threads, options)

    with Runner(bundle, opened) as runner:
        _repeat(runner, asked)
        return {
            (name, stage): each.median_us(stage) * runs_in(stage, asked)
            for name, each in runner.sessions.items()
            for stage in STAGES
        }


def kernels_of(
    component: str, stages: Sequence[str], runs: Sequence[Sequence[NodeTime]], counts: Mapping[str, float]
) -> list[Kernel]:
    """What each node takes in an answer: the median of a run of each stage, times how often that runs (``counts``)."""
    times: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    nodes: dict[tuple[str, int], NodeTime] = {}
    for stage, run in zip(stages, runs, strict=True):
        seen: Counter[str] = Counter()
        for node in run:
            key = node.node, seen[node.node]
            seen[node.node] += 1
            nodes.setdefault(key, node)
            times[key][stage].append(node.us)
    return [
        Kernel(
            component,
            node.node,
            node.op,
            node.onnx_names,
            sum(count * float(np.median(times[key][stage])) for stage, count in counts.items() if times[key][stage]),
        )
        for key, node in nodes.items()
    ]


def joined(kernels: Iterable[Kernel], graph: OnnxGraph) -> list[Kernel]:
    """Kernels that share a node of the ONNX graph become one, called as the slowest of them. Nodes that no kernel
    names stand with the one that reads them."""
    kernels = list(_with_unnamed(list(kernels), graph))
    joins = joining(graph)
    groups = grouped([joins.intersection(kernel.onnx_names) for kernel in kernels])
    order = {node.name: place for place, node in enumerate(graph.nodes)}
    found = []
    for group in groups:
        members = [kernels[index] for index in group]
        slowest = max(members, key=lambda kernel: kernel.us)
        names = {name for kernel in members for name in kernel.onnx_names}
        ordered = tuple(sorted(names, key=order.__getitem__))
        found.append(slowest._replace(onnx_names=ordered, us=sum(kernel.us for kernel in members)))
    return found


def joining(graph: OnnxGraph) -> set[str]:
    """Nodes that can only be computed once: others may be part of every kernel that reads them."""
    return {node.name for node in graph.nodes if node.op not in REPEATED}


def grouped(sets: Sequence[set[str]]) -> list[list[int]]:
    """Places of those that share a name, directly or through others; those without any stay alone."""
    owner: dict[str, int] = {}
    parent = list(range(len(sets)))

    def root(place: int) -> int:
        while parent[place] != place:
            place = parent[place]
        return place

    for place, names in enumerate(sets):
        for name in names:
            parent[root(place)] = root(owner.setdefault(name, place))
    found: dict[int, list[int]] = defaultdict(list)
    for place in range(len(sets)):
        found[root(place)].append(place)
    return list(found.values())


def _with_unnamed(kernels: list[Kernel], graph: OnnxGraph) -> Iterable[Kernel]:
    owner = {name: place for place, kernel in enumerate(kernels) for name in kernel.onnx_names}
    readers: dict[str, str] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, node.name)
    further: dict[int, list[str]] = defaultdict(list)
    for node in reversed(graph.nodes):
        if node.name not in owner:
            places = [owner[readers[name]] for name in node.outputs if readers.get(name) in owner]
            if places:
                owner[node.name] = places[0]
                further[places[0]].append(node.name)
    return (kernel._replace(onnx_names=(*kernel.onnx_names, *further[place])) for place, kernel in enumerate(kernels))


def _repeat(runner: Runner, asked: Sequence[Recorded]) -> None:
    """Once to warm up, then for a while."""
    runner.answer(asked[0], counted=False)
    began = perf_counter()
    for _ in range(MOST_ROUNDS):
        for each in asked:
            runner.answer(each)
        if perf_counter() - began > LEAST_S:
            return


def _scaled(
    bundle: Bundle,
    graphs: Iterable[Graph],
    names: dict[str, str],
    found: dict[str, list[Kernel]],
    stages: dict[tuple[str, str], float],
    steps: float,
) -> EngineProfile:
    kernels: list[Kernel] = []
    factors: dict[str, float] = {}
    for graph in graphs:
        name = graph.component
        counted = sum(kernel.us for kernel in found[name])
        whole = sum(us for (component, _), us in stages.items() if component == name)
        factors[name] = whole / counted if counted else 1.0
        kernels += [
            kernel._replace(us=kernel.us * factors[name])
            for kernel in joined(found[name], read_graph(bundle.read(graph.file)))
        ]
    return EngineProfile(names, tuple(kernels), factors, stages, steps)
