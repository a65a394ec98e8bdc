"""The graphs of a bundle run node by node as they are written, to see which shapes an answer gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

from mmedge.backends.onnxruntime import BACKEND
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.onnx_graph import OnnxGraph, Tensor, read_graph
from mmedge.core.ports import Port
from mmedge.profiling.layers.costs import Run, run_costs
from mmedge.profiling.layers.recorded import Recorded, Runner, Timed

_STEPS = 2
"""Enough to see by how much each costs more than the one before."""


class Reference(NamedTuple):
    """What an answer has to do at least."""

    graphs: dict[str, OnnxGraph]
    """By component."""
    runs: dict[str, list[tuple[str, Run]]]
    """By component, every run with its stage."""
    sizes: dict[str, dict[str, int]]
    """By component, bytes of each tensor at its largest."""

    def total(self, component: str, stage: str, steps: int) -> Run | None:
        """Of all runs of a graph in a stage, where the decoder takes ``steps`` steps; None if it does not run then.

        A step costs what the one before it cost and always the same more, for one token more in the cache.
        """
        runs = [run for name, run in self.runs[component] if name == stage]
        if not runs or (stage == "decode_loop" and not steps):
            return None
        if stage != "decode_loop":
            return reduce(lambda one, two: _sum(int.__add__, one, two), runs)  # a tower runs for each look
        first, second = runs[0], runs[min(1, len(runs) - 1)]
        return _sum(lambda one, two: steps * one + (two - one) * steps * (steps - 1) // 2, first, second)


def reference(bundle: Bundle, asked: Recorded) -> Reference:
    """Run every node of every graph once for this answer, on ONNX Runtime without optimizations.

    Raises:
        BackendError: ONNX Runtime is missing, or refuses a graph.
    """
    graphs = bundle.manifest.graphs
    read = {graph.component: read_graph(bundle.read(graph.file)) for graph in graphs}
    plain = {graph.component: BACKEND.open_plain(graph, bundle.file(graph.file)) for graph in graphs}
    with Runner(bundle, lambda graph: plain[graph.component]) as runner:
        runner.answer(asked._replace(written=asked.written[:_STEPS]))
        runs: dict[str, list[tuple[str, Run]]] = {}
        sizes: dict[str, dict[str, int]] = {}
        for graph in graphs:
            name, session = graph.component, runner.sessions[graph.component]
            told = plain[name].shapes()
            shapes = zip(session.runs, told, _fed(graph, session), strict=True)
            runs[name] = [(stage, run_costs(read[name], made, fed)) for (stage, _), made, fed in shapes]
            sizes[name] = _sizes(read[name], told)
    return Reference(read, runs, sizes)


def _sizes(graph: OnnxGraph, told: list[dict[str, tuple[Tensor, ...]]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for made in told:
        for node in graph.nodes:
            for name, tensor in zip(filter(None, node.outputs), made.get(node.name, ()), strict=False):
                sizes[name] = max(sizes.get(name, 0), tensor.bytes)
    return sizes


def _sum(joined: Callable[[int, int], int], one: Run, two: Run) -> Run:
    nodes = {
        name: replace(
            cost,
            flops=joined(cost.flops, two.nodes[name].flops),
            weights=joined(cost.weights, two.nodes[name].weights),
            moved=joined(cost.moved, two.nodes[name].moved),
        )
        for name, cost in one.nodes.items()
    }
    numbers = [joined(mine, other) for mine, other in zip(_numbers(one), _numbers(two), strict=True)]
    return Run(numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], nodes)


def _numbers(run: Run) -> tuple[int, int, int, int, int]:
    return run.quantized_flops, run.rest_flops, run.weights, run.fed, run.written


def _fed(graph: Graph, session: Timed) -> Iterator[dict[str, Tensor]]:
    """Inputs of each run, with the cache."""
    past = 0
    ports = (*graph.inputs, *(graph.cache.past() + graph.cache.steering() if graph.cache else ()))
    for (stage, _), given in zip(session.runs, session.fed, strict=True):
        sizes = {
            str(word): size
            for port in graph.inputs
            if port.name in given
            for word, size in zip(port.shape, given[port.name], strict=True)
        }
        past = 0 if stage == "prefill" else past
        sizes |= {"past": past, "total": past + sizes.get("length", 0)}
        yield {port.name: _filled(port, sizes) for port in ports}
        past += sizes.get("length", 0)


def _filled(port: Port, sizes: dict[str, int]) -> Tensor:
    return Tensor(port.dtype, tuple(sizes.get(size, 1) if isinstance(size, str) else size for size in port.shape))
