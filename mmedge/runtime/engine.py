"""The sessions of a model and the flow of values between them, by name (see `core.family`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from msgspec.structs import replace

from mmedge.core.backend import Batching, Session, Shortening
from mmedge.core.bundle import Graph
from mmedge.core.family import STEP_INPUTS, Config, Family, Insertion, Prompt
from mmedge.core.ports import Port, Tensors
from mmedge.runtime.decode import Reading
from mmedge.runtime.memory import Features, Mark, alike, marks, placed, rows_of
from mmedge.runtime.pick import greedy

ENDS = ("logits", "token")
"""Outputs of the last graph of a step: float32 ``[1, asked, vocabulary]``, int64 ``[1, asked]``, of the last position
unless others are asked for. One of the two is asked for."""

Arrange = Callable[[Prompt, list[Tensors]], Tensors]
"""What to make of the outputs for each look (`core.family.Family.arrange`)."""


class Engine:
    """Graphs that run once an answer, and those that run at each of its steps."""

    def __init__(
        self,
        graphs: Iterable[Graph],
        sessions: dict[str, Session],
        arrange: Arrange | None = None,
        *,
        remember: bool = False,
    ) -> None:
        self.graphs = tuple(graphs)
        self.sessions = sessions
        self.each_step = tuple(graph for graph in self.graphs if graph.role == "decode")
        self.chooses = any(port.name == "token" for graph in self.each_step for port in graph.outputs)
        self.once = tuple(graph for graph in self.graphs if graph not in self.each_step)
        self._arrange = arrange or _put_together
        self._seen: Tensors = {}
        self._features = Features() if remember else None
        self._remember = remember
        self._read: list[Mark] = []
        """What the cache holds."""
        self._coming: list[Mark] = []
        """What of a prompt is to be read next."""

    def encode(self, prompt: Prompt) -> Tensors:
        """Run what runs once an answer: all values by name."""
        values = self._encode(prompt.feeds)
        if prompt.looks:
            values |= self._arrange(prompt, [self._look({**prompt.feeds, **look}) for look in prompt.looks])
        return values

    def _look(self, feeds: Tensors) -> Tensors:
        return self._features.of(feeds, self._encode) if self._features else self._encode(feeds)

    def _encode(self, feeds: Tensors) -> Tensors:
        values = dict(feeds)
        for graph in self.once:
            if any(port.name in values for port in graph.inputs):  # not so of a tower where there is nothing to see
                values |= self.sessions[graph.component].run(_known(graph, values))
        return values

    def begin(self, values: Tensors, prompt: Prompt | None = None) -> int:
        """Start an answer: empty the cache, hold what stays the same at every step. Returns how many tokens of the
        prompt the cache still holds from the answer before; 0 without ``prompt``."""
        self._coming = []
        if prompt and self._remember and self._may_go_on(prompt):
            coming = marks(prompt, values)
            held = min(alike(self._read, coming), len(coming) - 1)
            if held and self.keep(held):
                self._seen, self._coming = values, coming[held:]
                return held
            self._coming = coming
        self._reset(values)
        return 0

    def _may_go_on(self, prompt: Prompt) -> bool:
        """Not where something is held besides the cache, or where tokens of the prompt see later ones."""
        return not prompt.feeds and not prompt.along

    def keep(self, length: int) -> bool:
        """Forget all but the first ``length`` tokens that were read; False where an engine cannot."""
        cached = [self.sessions[graph.component] for graph in self.each_step if graph.cache]
        del self._read[length:]
        return all(isinstance(session, Shortening) and session.keep(length) for session in cached)

    @property
    def looks_ahead(self) -> bool:
        """Whether tokens can be read on trial: the graph chooses after each of them, and the cache can be shortened."""
        chosen = [port for graph in self.each_step for port in graph.outputs if port.name == "token"]
        several = any(port.shape[1:] == ("asked",) for port in chosen)
        return several and all(graph.cache is None or graph.cache.shared for graph in self.each_step)

    def _reset(self, values: Tensors) -> None:
        self._read = []
        made = {port.name for graph in self.each_step for port in graph.outputs}
        self._seen = values
        for graph in self.each_step:
            held = {name: tensor for name, tensor in _known(graph, values).items() if name not in {*STEP_INPUTS, *made}}
            self.sessions[graph.component].reset(held)

    def step(self, reading: Reading) -> np.ndarray:
        """Logits ``[vocabulary]`` after the last token that is read."""
        logits: np.ndarray = self._step(reading, "logits")[0, -1]
        return logits

    def choose(self, reading: Reading) -> int:
        """The most likely next token; where the graph chooses it, the logits stay on the device."""
        if self.chooses:
            return int(self._step(reading, "token")[0, -1])
        return greedy(self.step(reading))

    def step_each(self, reading: Reading) -> np.ndarray:
        """Logits ``[length, vocabulary]`` after each token that is read; of graphs that can be asked for them."""
        logits: np.ndarray = self._step(replace(reading, asked=np.arange(reading.tokens.shape[1])), "logits")[0]
        return logits

    def choose_each(self, reading: Reading) -> np.ndarray:
        """The most likely next token after each that is read, int64 ``[length]``."""
        every = replace(reading, asked=np.arange(reading.tokens.shape[1]))
        chosen: np.ndarray = self._step(every, "token")[0]
        return chosen

    @property
    def goes_together(self) -> bool:
        """Whether several answers can go on at once: the graph chooses their tokens, and the cache has rows."""
        return self.looks_ahead and all(
            graph.cache is None or isinstance(self.sessions[graph.component], Batching) for graph in self.each_step
        )

    def begin_row(self, row: int, values: Tensors) -> None:
        """Start the answer in this row of the cache; the first empties all of it."""
        if not row:
            self._reset(values)
        self._seen, self._coming = values, []
        self.select(row, row + 1)
        self.keep(0)

    def select(self, begin: int, end: int) -> None:
        """The answers that the next steps belong to."""
        self._read = []
        for session in self._with_rows():
            session.select(begin, end)

    def move(self, old: int, new: int) -> None:
        """Put the answer in row ``old`` in place of that in row ``new``."""
        for session in self._with_rows():
            session.move(old, new)

    def _with_rows(self) -> Iterator[Batching]:
        for graph in self.each_step:
            session = self.sessions[graph.component]
            if graph.cache and isinstance(session, Batching):
                yield session

    def choose_together(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """The most likely token after one more of each selected answer, int64 ``[answers]``; ``positions`` are int64
        ``[..., 1, answers]``."""
        reading = Reading(tokens[None], positions, asked=np.array([0]))
        chosen: np.ndarray = self._step(reading, "token", together=True)[:, -1]
        return chosen

    def _step(self, reading: Reading, wanted: str, *, together: bool = False) -> np.ndarray:
        """``together`` are tokens of as many answers, not those of one in a row."""
        length = reading.tokens.shape[1]
        values: Tensors = {
            "input_ids": reading.tokens,
            "position_ids": reading.positions,
            "logits_at": np.array([length - 1]) if reading.asked is None else reading.asked,
            **reading.along,
        }
        for graph in self.each_step:
            outputs = [port.name for port in graph.outputs if port.name == wanted or port.name not in ENDS]
            feeds = _known(graph, values) | {port.name: _zeros(port, length) for port in self._missing(graph, values)}
            for insertion in reading.insertions:
                if insertion.into in feeds:
                    feeds[insertion.into] = _inserted(feeds[insertion.into], insertion, self._seen)
            if together:
                feeds = {port.name: _as_rows(port, feeds[port.name]) for port in graph.inputs if port.name in feeds}
            values |= self.sessions[graph.component].run(feeds, outputs)
        if self._remember and not together:
            self._read += self._coming if reading.is_prompt else placed(reading.tokens[0].tolist(), reading.positions)
        return values[wanted]

    def _missing(self, graph: Graph, values: Tensors) -> Iterator[Port]:
        """Inputs along the step that nobody gives now: they are 0 for what is no part of a prompt."""
        for port in graph.inputs:
            if port.name not in values and port.name not in self._seen and port.shape[1:2] == ("length",):
                yield port

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()


def arranging(family: Family, config: Config) -> Arrange:
    """The family's own way for this model, or to put them together."""
    if (arrange := family.arrange) is None:
        return _put_together
    return lambda prompt, seen: arrange(config, prompt, seen)


def _put_together(prompt: Prompt, seen: list[Tensors]) -> Tensors:
    made = seen[0].keys() - prompt.looks[0].keys() - prompt.feeds.keys()
    return {name: np.concatenate([values[name] for values in seen]) for name in made}


def _inserted(base: np.ndarray, insertion: Insertion, seen: Tensors) -> np.ndarray:
    """A copy of ``base`` ``[1, length, width]`` with the rows of the insertion."""
    filled: np.ndarray = base.copy()
    filled[0, insertion.places] = rows_of(insertion, seen)
    return filled


def _zeros(port: Port, length: int) -> np.ndarray:
    sizes = {"length": length}
    return np.zeros([size if isinstance(size, int) else sizes.get(size, 1) for size in port.shape], port.dtype)


def _as_rows(port: Port, tensor: np.ndarray) -> np.ndarray:
    """What was made for tokens of one answer, ``[1, length]``, as tokens of as many answers, ``[batch, 1]``."""
    if "batch" not in port.shape:
        return tensor
    axis = port.shape.index("batch")
    return np.swapaxes(tensor, axis, axis + 1)


def _known(graph: Graph, values: Tensors) -> Tensors:
    """What there is of a graph's inputs; its session refuses by name what is missing."""
    return {port.name: values[port.name] for port in graph.inputs if port.name in values}
