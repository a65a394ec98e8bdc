"""The sessions of a model and the flow of values between them, by name (see `core.family`)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mmedge.core.backend import Session
from mmedge.core.bundle import Graph
from mmedge.core.family import STEP_INPUTS
from mmedge.core.ports import Tensors
from mmedge.runtime.pick import greedy

ENDS = ("logits", "token")
"""Outputs of the last graph of a step: float32 ``[1, 1, vocabulary]``, int64 ``[1, 1]``. One of them is asked for."""


class Engine:
    """Graphs that run once an answer, and those that run at each of its steps."""

    def __init__(self, graphs: Iterable[Graph], sessions: dict[str, Session]) -> None:
        self.graphs = tuple(graphs)
        self.sessions = sessions
        self.each_step = tuple(graph for graph in self.graphs if graph.cache or _reads(graph, STEP_INPUTS))
        self.chooses = any(port.name == "token" for graph in self.each_step for port in graph.outputs)
        self.once = tuple(graph for graph in self.graphs if graph not in self.each_step)

    def encode(self, feeds: Tensors) -> Tensors:
        """Run what runs once an answer: all values by name."""
        values = dict(feeds)
        for graph in self.once:
            values |= self.sessions[graph.component].run(_known(graph, values))
        return values

    def begin(self, values: Tensors) -> None:
        """Start an answer: empty the cache, hold what stays the same at every step."""
        made = {port.name for graph in self.each_step for port in graph.outputs}
        for graph in self.each_step:
            held = {name: tensor for name, tensor in _known(graph, values).items() if name not in {*STEP_INPUTS, *made}}
            self.sessions[graph.component].reset(held)

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Logits ``[vocabulary]`` after the last of ``tokens`` (both int64 ``[1, length]``)."""
        logits: np.ndarray = self._step(tokens, positions, "logits")[0, -1]
        return logits

    def choose(self, tokens: np.ndarray, positions: np.ndarray) -> int:
        """The most likely token after ``tokens``; where the graph chooses it, the logits stay on the device."""
        if self.chooses:
            return int(self._step(tokens, positions, "token")[0, -1])
        return greedy(self.step(tokens, positions))

    def _step(self, tokens: np.ndarray, positions: np.ndarray, wanted: str) -> np.ndarray:
        values: Tensors = {"input_ids": tokens, "position_ids": positions}
        for graph in self.each_step:
            outputs = [port.name for port in graph.outputs if port.name == wanted or port.name not in ENDS]
            values |= self.sessions[graph.component].run(_known(graph, values), outputs)
        return values[wanted]

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()


def _reads(graph: Graph, names: tuple[str, ...]) -> bool:
    return any(port.name in names for port in graph.inputs)


def _known(graph: Graph, values: Tensors) -> Tensors:
    """What there is of a graph's inputs; its session refuses by name what is missing."""
    return {port.name: values[port.name] for port in graph.inputs if port.name in values}
