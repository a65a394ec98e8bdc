"""How far the tensors inside two bundles of the same model are apart, node by node.

Both run on ONNX Runtime with the same inputs and the same tokens, each graph fed by its own bundle's graphs, so that
what a node gets wrong includes what was wrong before it. Tensors are those that both files call the same and that nodes
of the same name make; they are dumped a few at a time, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmedge.backends.onnxruntime import BACKEND
from mmedge.core.backend import Session
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.onnx_graph import OnnxGraph
from mmedge.core.ports import Tensors
from mmedge.profiling.layers.costs import VIEWS
from mmedge.profiling.layers.recorded import Recorded, Runner
from mmedge.runtime.engine import Engine

MOST_BYTES = 256 << 20
"""Of tensors of one bundle that are held at once."""
STEPS = 4
"""Of the decoder, after the prompt."""
LARGEST_DB = 150.0
"""Of tensors that are equal: more than float32 can tell apart."""

Say = Callable[[str], None]


@dataclass
class Showing:
    """A session that keeps some of its outputs for itself."""

    session: Session
    names: tuple[str, ...]
    seen: list[Tensors] = field(default_factory=list)

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        found = self.session.run(feeds)
        self.seen.append({name: found[name] for name in self.names})
        return found

    def reset(self, held: Tensors | None = None) -> None:
        self.session.reset(held)

    def close(self) -> None:
        self.session.close()


def signal_to_noise(
    bundles: tuple[Bundle, Bundle],
    graphs: tuple[Mapping[str, OnnxGraph], Mapping[str, OnnxGraph]],
    sizes: Mapping[str, Mapping[str, int]],
    asked: Sequence[Recorded],
    say: Say = lambda line: None,
) -> dict[tuple[str, str], float]:
    """dB of the second bundle's tensors against the first's, by component and node; ``sizes`` are bytes of tensors.

    Raises:
        BackendError: ONNX Runtime is missing, or refuses a graph.
    """
    found: dict[tuple[str, str], float] = {}
    for graph in bundles[0].manifest.graphs:
        component = graph.component
        if component not in graphs[1]:
            continue
        cached = {port.name for port in graph.cache.present()} if graph.cache else set()
        makers = comparable(graphs[0][component], graphs[1][component], cached)
        pieces = list(chunks(makers, sizes.get(component, {})))
        for number, names in enumerate(pieces):
            say(f"tensors of {component}: {number + 1} of {len(pieces)}")
            energies = _compare(bundles, component, names, asked)
            found |= {(component, makers[name]): decibels(*energy) for name, energy in energies.items()}
        found |= following(graphs[1][component], component, found)
    return found


def comparable(one: OnnxGraph, two: OnnxGraph, cached: Collection[str] = ()) -> dict[str, str]:
    """By tensor, the node that makes it, under the same names in both graphs. What only takes another shape in both is
    left out, and what is ``cached``, which a session keeps for itself."""
    others = {node.name: node for node in two.nodes}
    return {
        name: node.name
        for node in one.nodes
        if (other := others.get(node.name)) and not {node.op, other.op} <= VIEWS
        for name in node.outputs[:1]
        if name in other.outputs and name not in cached
    }


def chunks(names: Mapping[str, str], sizes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """As many at a time as fit; one that is too large alone."""
    chunk: list[str] = []
    total = 0
    for name in names:
        size = sizes.get(name, 0)
        if chunk and total + size > MOST_BYTES:
            yield tuple(chunk)
            chunk, total = [], 0
        chunk.append(name)
        total += size
    if chunk:
        yield tuple(chunk)


def decibels(signal: float, noise: float) -> float:
    """Of a signal's energy against that of its noise."""
    if noise <= 0:
        return LARGEST_DB
    return float(min(LARGEST_DB, 10 * np.log10(max(signal, 1e-300) / noise)))


def following(graph: OnnxGraph, component: str, found: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """For nodes whose own output the other graph does not have, what is found for the first node that reads it: of a
    product that is spelled with its bias in one graph and without in the other, the sum."""
    readers = {name: node for node in reversed(graph.nodes) for name in node.inputs}
    told = {name: db for (owner, name), db in found.items() if owner == component}
    for node in reversed(graph.nodes):
        reader = readers.get(node.outputs[0]) if node.outputs else None
        if node.name not in told and reader and reader.name in told:
            told[node.name] = told[reader.name]
    return {(component, name): db for name, db in told.items()}


def _compare(
    bundles: tuple[Bundle, Bundle], component: str, names: tuple[str, ...], asked: Sequence[Recorded]
) -> dict[str, tuple[float, float]]:
    """Energy of signal and noise."""
    energies = dict.fromkeys(names, (0.0, 0.0))
    with _runner(bundles[0], component, names) as first, _runner(bundles[1], component, names) as second:
        for each in asked:
            shown = [_shown(runner, component, each) for runner in (first, second)]
            for one, two in zip(*shown, strict=True):
                for name in names:
                    energies[name] = _added(energies[name], one[name], two[name])
    return {name: energy for name, energy in energies.items() if energy != (0.0, 0.0)}


def _runner(bundle: Bundle, component: str, names: tuple[str, ...]) -> Runner:
    def opened(graph: Graph) -> Session:
        source = bundle.file(graph.file)
        if graph.component != component:
            return BACKEND.open(graph, source)
        return Showing(BACKEND.open_showing(graph, source, names), names)

    graphs = bundle.manifest.graphs
    once = [graph.component for graph in Engine(graphs, {}).once]
    needed = graphs[: once.index(component) + 1] if component in once else graphs
    return Runner(bundle, opened, needed)


def _shown(runner: Runner, component: str, asked: Recorded) -> list[Tensors]:
    session = runner.sessions[component].session
    assert isinstance(session, Showing)
    session.seen.clear()
    runner.answer(asked._replace(written=asked.written[:STEPS]), until=component)
    return list(session.seen)


def _added(energy: tuple[float, float], one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    """Only of numbers, of which both have as many."""
    if one.dtype.kind != "f" or two.dtype.kind != "f" or one.size != two.size:
        return energy
    signal = one.ravel().astype(np.float64)
    noise = signal - two.ravel()
    finite = np.isfinite(noise)  # masks hold infinities, which are equal or not to be compared
    signal, noise = signal[finite], noise[finite]
    return energy[0] + float(signal @ signal), energy[1] + float(noise @ noise)
