"""Answers that are known beforehand, so that every engine reads the same tokens: what its graphs are run on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmedge.core import find
from mmedge.core.backend import Backend, Session
from mmedge.core.bundle import Bundle
from mmedge.core.family import Prompt, Request
from mmedge.core.manifest import Graph
from mmedge.core.ports import Tensors
from mmedge.errors import UsageError
from mmedge.media.image import decode_picture, read_picture
from mmedge.runtime.choose import choose
from mmedge.runtime.decode import read_answer, read_prompt
from mmedge.runtime.engine import Engine, arranging
from mmedge.runtime.golden import LIMIT, asked, record
from mmedge.runtime.model import Model, open_model, prepared, tokenizer_of

MOST = 8
"""Answers that are enough to tell nodes apart."""

STAGES = ("encode", "prefill", "decode_loop")
"""When graphs are run."""


class Recorded(NamedTuple):
    """A request as the graphs see it, and its answer."""

    id: str
    prompt: Prompt
    written: tuple[int, ...]


def recorded_of(bundle: Bundle, pictures: Sequence[tuple[Path, str | None]] = ()) -> tuple[Recorded, ...]:
    """Of ``pictures`` with their texts, answered by the bundle as it runs here; without them its golden samples.

    Raises:
        UsageError: there are neither.
        InputError: a picture cannot be used.
    """
    if pictures:
        return _asked(bundle, pictures[:MOST])
    if not bundle.manifest.golden:
        raise UsageError(f"`{bundle.path}` has no golden samples", hint="give --inputs")
    return tuple(
        Recorded(golden.path, _prompt(bundle, asked(bundle, golden)), golden.tokens)
        for golden in bundle.manifest.golden[:MOST]
    )


def runs_in(stage: str, asked: Sequence[Recorded]) -> float:
    """How often a graph runs in a stage of an answer, on average: once for each look, and for each step."""
    if stage == "prefill":
        return 1.0
    looks = stage == "encode"
    return float(np.mean([max(1, len(each.prompt.looks)) if looks else len(each.written) for each in asked]))


def prompt_of(bundle: Bundle, picture: Path, text: str | None) -> Prompt:
    """A request as the bundle's graphs see it, without opening them.

    Raises:
        InputError: the picture or the text cannot be used.
    """
    pixels = decode_picture(read_picture(picture), str(picture)).pixels
    return _prompt(bundle, Request((pixels,), text))


def _prompt(bundle: Bundle, request: Request) -> Prompt:
    manifest = bundle.manifest
    return prepared(find.family(manifest.family), manifest.config, tokenizer_of(bundle), request)


def _asked(bundle: Bundle, pictures: Sequence[tuple[Path, str | None]]) -> tuple[Recorded, ...]:
    found = []
    with open_model(bundle, Model) as pipeline:
        for path, text in pictures:
            prompt = prompt_of(bundle, path, text)
            written = record(pipeline.engine, prompt).tokens[:LIMIT]
            found.append(Recorded(path.name, prompt, written))
    return tuple(found)


@dataclass
class Timed:
    """A session that remembers how long each run took, and to which stage it belongs."""

    session: Session
    stage: str = ""
    runs: list[tuple[str, float]] = field(default_factory=list)
    """Stage and microseconds."""
    fed: list[dict[str, tuple[int, ...]]] = field(default_factory=list)
    """Shapes of the inputs of each run, with those that are held."""
    held: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        self.fed.append(self.held | {name: tensor.shape for name, tensor in feeds.items()})
        began = time.perf_counter_ns()
        found = self.session.run(feeds, outputs)
        self.runs.append((self.stage, (time.perf_counter_ns() - began) / 1e3))
        return found

    def reset(self, held: Tensors | None = None) -> None:
        self.held = {name: tensor.shape for name, tensor in (held or {}).items()}
        self.session.reset(held)

    def close(self) -> None:
        self.session.close()

    def median_us(self, stage: str) -> float:
        """Of a run in the stage; 0 where there was none."""
        found = [us for name, us in self.runs if name == stage]
        return float(np.median(found)) if found else 0.0


class Runner:
    """Graphs of a bundle, all unless told otherwise, fed with recorded answers."""

    def __init__(
        self, bundle: Bundle, opened: Callable[[Graph], Session], graphs: Sequence[Graph] | None = None
    ) -> None:
        manifest = bundle.manifest
        graphs = manifest.graphs if graphs is None else graphs
        self.sessions: dict[str, Timed] = {}
        try:
            for graph in graphs:
                self.sessions[graph.component] = Timed(opened(graph))
        except BaseException:
            self.close()
            raise
        arrange = arranging(find.family(manifest.family), manifest.config)
        self._engine = Engine(graphs, dict(self.sessions), arrange)

    def answer(self, asked: Recorded, *, counted: bool = True, until: str = "") -> None:
        """Run every graph as for this answer, or what has to run for the graph ``until``; what is not ``counted``
        belongs to no stage."""
        self._begin("encode" if counted else "")
        seen = self._engine.encode(asked.prompt)
        if not self._engine.each_step or until in {graph.component for graph in self._engine.once}:
            return
        self._engine.begin(seen)
        self._begin("prefill" if counted else "")
        self._engine.choose(read_prompt(asked.prompt))
        self._begin("decode_loop" if counted else "")
        for place, token in enumerate(asked.written):
            self._engine.choose(read_answer(asked.prompt, np.array([token], np.int64), place))

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, stage: str) -> None:
        for session in self.sessions.values():
            session.stage = stage


def engines_of(bundle: Bundle, backend: str | None) -> dict[str, Backend]:
    """What runs each component here."""
    return choose(bundle, backend, aloud=False)
