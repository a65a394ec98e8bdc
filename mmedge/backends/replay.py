"""Recorded outputs and set delays instead of an engine, to test what stands on engines. It computes nothing.

`replay` makes a decoder that writes given tokens; `Replay` is a whole backend, for graphs of a bundle.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mmedge.backends._engine import closed
from mmedge.backends._inputs import Inputs
from mmedge.core.backend import NO_OPTIONS, Options
from mmedge.core.manifest import Graph
from mmedge.core.ports import CacheShape, Port, Tensors
from mmedge.errors import BackendError

Delay: TypeAlias = float | Sequence[float]
"""Seconds that a run takes: of every run, or of one after the other and then always the last."""


class Replay:
    """Graphs that answer what they were told, component by component, from the start again after a reset."""

    name = "replay"

    def __init__(
        self, outputs: Mapping[str, Sequence[Tensors]] | None = None, delay: Mapping[str, Delay] | None = None
    ) -> None:
        self._outputs = outputs or {}
        self._delay = delay or {}

    def version(self) -> str:
        return "1"

    def tied_to(self) -> dict[str, str]:
        return {}

    def compiles(self, graph: Graph) -> bool:
        return False

    def compile(self, graph: Graph, source: Path, output: Path, options: Options = NO_OPTIONS) -> Path:
        return source

    def open(self, graph: Graph, artifact: Path, threads: int = 0, options: Options = NO_OPTIONS) -> ReplaySession:
        if graph.component not in self._outputs:
            raise BackendError(f"there is no recording of `{graph.component}`", hint="choose another backend")
        return ReplaySession(graph, self._outputs[graph.component], self._delay.get(graph.component, 0.0))


class ReplaySession:
    """A session that can be asked afterwards what was done with it."""

    def __init__(self, graph: Graph, outputs: Sequence[Tensors], delay: Delay = 0.0) -> None:
        self.graph = graph
        self.length = 0
        """Tokens that the cache would hold."""
        self.resets = 0
        self.held: Tensors = {}
        self.runs: list[Tensors] = []
        """What every run was fed, resets or not."""
        self._outputs = outputs
        self._since_reset = 0
        self._delays = _delays(delay)
        self._inputs = Inputs(graph)
        self._closed = False

    def reset(self, held: Tensors | None = None) -> None:
        self._check_open()
        self.held = self._inputs.hold(held or {})
        self.length = self._since_reset = 0
        self.resets += 1

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        self._check_open()
        self.runs.append(self._inputs.check(feeds))
        recorded = self._next()
        self.length += feeds["input_ids"].shape[1] if "input_ids" in feeds else 0
        self._since_reset += 1
        time.sleep(next(self._delays))
        return recorded if outputs is None else {name: recorded[name] for name in outputs}

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise closed(self.graph.component)

    def _next(self) -> Tensors:
        if self._since_reset >= len(self._outputs):
            raise BackendError(f"the recording of `{self.graph.component}` ends after {len(self._outputs)} runs")
        return self._outputs[self._since_reset]


def replay(
    logits_of: Sequence[int],
    vocabulary: int = 16,
    delay: Delay = 0.0,
    held: Sequence[Port] = (),
) -> ReplaySession:
    """A decoder whose n-th run after a reset has its largest logit at the n-th token of ``logits_of``.

    It takes ``input_ids``, ``position_ids`` and the ports in ``held``.
    """
    graph = Graph(
        component="decoder",
        file="graphs/decoder.onnx",
        inputs=(Port("input_ids", "int64", (1, "length")), Port("position_ids", "int64", (1, "length")), *held),
        outputs=(Port("logits", "float32", (1, 1, vocabulary)),),
        precision="float32",
        cache=CacheShape(layers=1, heads=1, head_dim=1),
    )
    one_hot = np.eye(vocabulary, dtype=np.float32)
    return ReplaySession(graph, [{"logits": one_hot[None, None, token]} for token in logits_of], delay)


def _delays(delay: Delay) -> Iterator[float]:
    given = [delay] if isinstance(delay, float | int) else list(delay)
    return chain(given, repeat(given[-1]))


BACKEND = Replay()
