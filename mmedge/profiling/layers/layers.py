"""Layers: what an engine runs, what it costs, how close it comes to what the machine can do, and how exact it is.

A layer's ceiling counts bytes only where they have to come from memory: weights if those of its graph do not fit the
last level cache, other tensors if they are larger than it alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from mmedge.backends._trtexec_profile import node_times
from mmedge.core.backend import Profiling
from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.onnx_graph import read_graph
from mmedge.errors import UsageError
from mmedge.profiling.layers.costs import Run
from mmedge.profiling.layers.engine_profiles import EngineProfile, Kernel, engine_profile, grouped, joined, joining
from mmedge.profiling.layers.intermediates import signal_to_noise
from mmedge.profiling.layers.peaks import moving_s, peaks_of_all, with_threads
from mmedge.profiling.layers.recorded import STAGES, Recorded, engines_of, recorded_of
from mmedge.profiling.layers.reference import Reference, reference
from mmedge.profiling.layers.roofline import Part, compute_s, kinds_of
from mmedge.profiling.run import Candidate, Flag, Layer, Peaks

Say = Callable[[str], None]


class Side(NamedTuple):
    """A bundle on an engine."""

    bundle: Bundle
    backend: str | None
    """None takes what the bundle's target names."""
    threads: int = 0
    """0 means all cores."""


class Seen(NamedTuple):
    """Layers of one or two sides, and what they were seen with."""

    layers: tuple[Layer, ...]
    profiles: tuple[EngineProfile, ...]
    peaks: Peaks
    """With the first side's threads, and in it those with the other's."""
    joins: frozenset[str]
    """Nodes by which layers of two sides are the same."""
    unknown: tuple[str, ...]
    """Nodes whose operations are not counted."""


class Pair(NamedTuple):
    """What does the same on two sides; empty where one of them does nothing for it."""

    one: tuple[Layer, ...]
    two: tuple[Layer, ...]


def see(sides: Sequence[Side], asked: Sequence[Recorded] = (), say: Say = lambda line: None) -> Seen:
    """Every layer of each side; ``asked`` are by default the golden samples of the first bundle.

    Raises:
        BackendError: an engine is missing, or cannot tell times of nodes; ONNX Runtime is missing.
    """
    asked = asked or recorded_of(sides[0].bundle)
    profiles = [engine_profile(side.bundle, side.backend, side.threads, asked, say) for side in sides]
    kinds = [
        (side.threads, kinds_of(side.bundle, profile.engines)) for side, profile in zip(sides, profiles, strict=True)
    ]
    found = peaks_of_all(kinds, say)
    references = _references(sides, asked[0], say)
    layers: list[Layer] = []
    for c, (side, profile) in enumerate(zip(sides, profiles, strict=True)):
        noise = _noise(side, sides[0], references, asked, say)
        limits = with_threads(found, side.threads)
        layers += layers_of(c, side.bundle, profile, references[side.bundle.digest], limits, noise)
    joins = {name for each in references.values() for graph in each.graphs.values() for name in joining(graph)}
    unknown = {name for each in references.values() for runs in each.runs.values() for name in runs[0][1].unknown}
    return Seen(tuple(layers), tuple(profiles), found, frozenset(joins), tuple(sorted(unknown)))


def layers_of_candidates(
    candidates: Sequence[Candidate], say: Say = lambda line: None
) -> tuple[tuple[Layer, ...], tuple[Flag, ...]]:
    """Of those whose engines tell times of nodes, on the golden samples of the first; why not of the others. Programs
    that are not mmedge's are left out."""
    sides: dict[int, Side] = {}
    flags: list[Flag] = []
    for c, candidate in enumerate(candidates):
        if candidate.command:
            continue
        side = Side(open_bundle(Path(candidate.bundle)), candidate.backend, candidate.threads)
        engines = engines_of(side.bundle, side.backend)
        silent = [engine.name for engine in engines.values() if not isinstance(engine, Profiling)]
        if silent:
            text = f"{candidate.name} has no layers: {silent[0]} does not tell the time of each node"
            flags.append(Flag("no_layers", "note", text, "read what trtexec exports with `mmedge layers --trtexec`"))
        else:
            sides[c] = side
    if not sides:
        return (), tuple(flags)
    seen = see(list(sides.values()), say=say)
    numbers = list(sides)
    return tuple(replace(layer, c=numbers[layer.c]) for layer in seen.layers), tuple(flags)


def layers_of(
    c: int,
    bundle: Bundle,
    profile: EngineProfile,
    found: Reference,
    limits: Peaks,
    noise: Mapping[tuple[str, str], float],
) -> list[Layer]:
    """Of one side, the slowest first."""
    whole = sum(kernel.us for kernel in profile.kernels)
    precisions = {graph.component: graph.precision for graph in bundle.manifest.graphs}
    steps = round(profile.steps)
    totals: dict[str, list[tuple[Run, int]]] = {
        component: [
            (run, steps if stage == "decode_loop" else 1)
            for stage in STAGES
            if (run := found.total(component, stage, steps))
        ]
        for component in precisions
    }
    layers = [
        _layer(c, kernel, profile.engines[kernel.component], precisions, totals, limits, whole, noise)
        for kernel in profile.kernels
    ]
    return sorted(layers, key=lambda layer: -layer.us)


def trtexec_layers(bundle: Bundle, component: str, profile: bytes, layers: bytes | None) -> tuple[Layer, ...]:
    """What TensorRT's own tool measured of a component, in one run of it.

    Raises:
        UsageError: the bundle has no such component.
        InputError: a file is not what trtexec writes.
    """
    graphs = {graph.component: graph for graph in bundle.manifest.graphs}
    if component not in graphs:
        raise UsageError(f"`{bundle.path}` has no component `{component}`", hint=f"it has: {', '.join(graphs)}")
    graph = read_graph(bundle.read(graphs[component].file))
    times = node_times(profile, layers, {node.name for node in graph.nodes})
    kernels = joined([Kernel(component, *time) for time in times], graph)
    whole = sum(kernel.us for kernel in kernels)
    found = [Layer(0, *kernel, share=kernel.us / whole if whole else 0.0) for kernel in kernels]
    return tuple(sorted(found, key=lambda layer: -layer.us))


def pairs(seen: Seen) -> list[Pair]:
    """Layers of two sides that share nodes of the graph, those first that cost most time together."""
    layers = seen.layers
    groups = grouped(
        [{f"{each.component}/{name}" for name in seen.joins.intersection(each.onnx_names)} for each in layers]
    )
    found = [
        Pair(*(tuple(layers[place] for place in group if layers[place].c == c) for c in (0, 1))) for group in groups
    ]
    return sorted(found, key=lambda pair: -sum(layer.us for layer in (*pair.one, *pair.two)))


def _layer(
    c: int,
    kernel: Kernel,
    engine: str,
    precisions: Mapping[str, str],
    totals: Mapping[str, Sequence[tuple[Run, int]]],
    limits: Peaks,
    whole: float,
    noise: Mapping[tuple[str, str], float],
) -> Layer:
    precision = precisions[kernel.component]
    flops = weights = moved = ceiling_s = 0.0
    for run, count in totals[kernel.component]:
        costs = [run.nodes[name] for name in kernel.onnx_names if name in run.nodes]
        quantized = sum(cost.flops for cost in costs if cost.quantized)
        every = sum(cost.flops for cost in costs)
        read, other = sum(cost.weights for cost in costs), sum(cost.moved for cost in costs)
        part = Part(engine, precision, quantized, every - quantized, 0, 0, 0)
        far = sum(size for size, all_of_it in ((read, run.weights), (other, other)) if all_of_it > limits.cache * count)
        ceiling_s += max(compute_s(limits, part), moving_s(limits, engine, far, 0))
        flops, weights, moved = flops + every, weights + read, moved + other
    told = [noise[kernel.component, name] for name in kernel.onnx_names if (kernel.component, name) in noise]
    return Layer(
        c=c,
        component=kernel.component,
        node=kernel.node,
        op=kernel.op,
        onnx_names=kernel.onnx_names,
        us=kernel.us,
        share=kernel.us / whole if whole else 0.0,
        flops=int(flops) if kernel.onnx_names else None,
        bytes=int(weights + moved) if kernel.onnx_names else None,
        roof=ceiling_s * 1e6 / kernel.us if kernel.onnx_names and kernel.us else None,
        snr_db=told[-1] if told else None,
    )


def _references(sides: Sequence[Side], asked: Recorded, say: Say) -> dict[str, Reference]:
    found: dict[str, Reference] = {}
    for bundle in (side.bundle for side in sides):
        if bundle.digest not in found:
            say(f"{bundle.path.name}: shapes of its tensors")
            found[bundle.digest] = reference(bundle, asked)
    return found


def _noise(
    side: Side, first: Side, references: Mapping[str, Reference], asked: Sequence[Recorded], say: Say
) -> dict[tuple[str, str], float]:
    """Nothing of the same bundle."""
    if side.bundle.digest == first.bundle.digest:
        return {}
    one, two = (references[each.bundle.digest] for each in (first, side))
    return signal_to_noise((first.bundle, side.bundle), (one.graphs, two.graphs), one.sizes, asked, say)
