"""A bundle ready to answer: pictures and a text in, a stream of text out, every stage timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from msgspec import Struct

from mmedge.core import find
from mmedge.core.backend import Session
from mmedge.core.bundle import Bundle, Graph, open_bundle
from mmedge.core.family import STEP_INPUTS, Config, Family, Prompt, Request
from mmedge.core.ports import Tensors
from mmedge.errors import UsageError
from mmedge.media.image import decode_picture, read_picture
from mmedge.media.text import StreamingDetokenizer, Tokenizer
from mmedge.runtime.decode import decode
from mmedge.runtime.pick import Pick, greedy
from mmedge.runtime.ready import ready

LIMIT = 64
"""Tokens of an answer unless the caller or the checkpoint's generation config says otherwise."""


class Piece(Struct, frozen=True):
    """Text that is final; ``ms`` since the decoder began."""

    text: str
    token: int | None
    ms: float


class Answer(Struct, frozen=True):
    """A finished answer and what it cost."""

    text: str
    tokens: tuple[int, ...]
    finish: str
    """``stop`` when the model ended it, ``length`` at the limit."""
    stages_ms: dict[str, float]
    """``read``, ``decode`` (file to pixels), ``preprocess``, ``encode``, ``prefill``, ``decode_loop``, ``detokenise``."""
    warnings: tuple[str, ...] = ()


class Clock:
    """Adds up milliseconds by stage."""

    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stages_ms[name] = self.stages_ms.get(name, 0.0) + (time.perf_counter() - started) * 1e3


class Engine:
    """The sessions of a model and the flow of values between them (see `core.family`)."""

    def __init__(self, graphs: Iterable[Graph], sessions: dict[str, Session]) -> None:
        self.graphs = tuple(graphs)
        self.sessions = sessions
        self.each_step = tuple(graph for graph in self.graphs if graph.cache or _reads(graph, STEP_INPUTS))
        self.once = tuple(graph for graph in self.graphs if graph not in self.each_step)

    def encode(self, feeds: Tensors) -> Tensors:
        """Run what runs once an answer: all values by name."""
        values = dict(feeds)
        for graph in self.once:
            values |= self.sessions[graph.component].run({port.name: values[port.name] for port in graph.inputs})
        return values

    def begin(self, values: Tensors) -> None:
        """Start an answer: empty the cache, hold what stays the same at every step."""
        made = {port.name for graph in self.each_step for port in graph.outputs}
        for graph in self.each_step:
            names = [port.name for port in graph.inputs if port.name not in STEP_INPUTS and port.name not in made]
            self.sessions[graph.component].reset({name: values[name] for name in names})

    def step(self, tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Logits ``[vocabulary]`` after the last of ``tokens`` (both int64 ``[1, length]``)."""
        values: Tensors = {"input_ids": tokens, "position_ids": positions}
        for graph in self.each_step:
            feeds = {port.name: values[port.name] for port in graph.inputs if port.name in values}
            values |= self.sessions[graph.component].run(feeds)
        return values["logits"][0, -1]

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()


class Pipeline:
    """Answers requests; made by `load`. Close it, or use it in a ``with`` block."""

    def __init__(
        self,
        family: Family,
        config: Config,
        tokenizer: Tokenizer,
        engine: Engine,
        tasks: tuple[str, ...],
        backends: dict[str, str] | None = None,
    ) -> None:
        self.family = family
        self.config = config
        self.tokenizer = tokenizer
        self.engine = engine
        self.tasks = tasks
        self.backends = backends or {}

    def caption(self, picture: Path | str | bytes, prompt: str | None = None, **options: object) -> Answer:
        """Describe a picture (a path, or an encoded file's bytes), going on from ``prompt`` if there is one.

        Options are those of `stream`.
        """
        return self.answer("caption", picture, prompt, **options)  # type: ignore[arg-type]

    def ask(self, picture: Path | str | bytes, question: str, **options: object) -> Answer:
        """Answer a question about a picture; options are those of `stream`."""
        return self.answer("ask", picture, question, **options)  # type: ignore[arg-type]

    def answer(
        self,
        task: str,
        picture: Path | str | bytes,
        text: str | None = None,
        *,
        pick: Pick = greedy,
        limit: int | None = None,
        show: Callable[[Piece], None] | None = None,
    ) -> Answer:
        """Read, look and answer; ``show`` sees each piece of text as soon as it is final."""
        if task not in self.tasks:
            raise UsageError(f"this bundle cannot `{task}`", hint=f"it can: {', '.join(self.tasks)}")
        clock = Clock()
        with clock.stage("read"):
            data = picture if isinstance(picture, bytes) else read_picture(Path(picture))
        with clock.stage("decode"):
            decoded = decode_picture(data, "picture" if isinstance(picture, bytes) else str(picture))
        with clock.stage("preprocess"):
            prompt = self.prepare(Request(images=(decoded.pixels,), text=text))
        most = self._limit(prompt, limit)
        pieces: list[Piece] = []
        for piece in self.stream(prompt, pick=pick, limit=most, clock=clock):
            pieces.append(piece)
            if show:
                show(piece)
        tokens = tuple(piece.token for piece in pieces if piece.token is not None)
        return Answer(
            text="".join(piece.text for piece in pieces).strip(),
            tokens=tokens,
            finish="length" if len(tokens) >= most else "stop",
            stages_ms=clock.stages_ms,
            warnings=decoded.warnings,
        )

    def prepare(self, request: Request) -> Prompt:
        """The request as the family's numbers."""
        return self.family.prepare(self.config, self.tokenizer, request)

    def stream(
        self, prompt: Prompt, *, pick: Pick = greedy, limit: int | None = None, clock: Clock | None = None
    ) -> Iterator[Piece]:
        """Yield text as it becomes final, until a stop token or ``limit`` tokens."""
        clock = clock or Clock()
        with clock.stage("encode"):
            values = self.engine.encode(prompt.feeds)
        started = time.perf_counter()
        words = StreamingDetokenizer(self.tokenizer)
        for token in self._tokens(prompt, values, pick, self._limit(prompt, limit), clock):
            with clock.stage("detokenise"):
                text = words.add(token)
            yield Piece(text, token, (time.perf_counter() - started) * 1e3)
        with clock.stage("detokenise"):
            rest = words.finish()
        if rest:
            yield Piece(rest, None, (time.perf_counter() - started) * 1e3)

    def _tokens(self, prompt: Prompt, values: Tensors, pick: Pick, limit: int, clock: Clock) -> Iterator[int]:
        with clock.stage("prefill"):
            self.engine.begin(values)

        def step(tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
            with clock.stage("decode_loop" if positions[0, 0] else "prefill"):
                return self.engine.step(tokens, positions)

        yield from decode(step, prompt.tokens, pick=pick, stop=prompt.stop, limit=limit)

    def _limit(self, prompt: Prompt, limit: int | None) -> int:
        room = prompt.capacity - len(prompt.tokens)
        asked = limit if limit is not None else self.config.get("generation", {}).get("max_new_tokens") or LIMIT
        if asked < 1:
            raise UsageError(f"the length limit is {asked}, it must be at least 1")
        return min(asked, room)

    def close(self) -> None:
        """Give the engines' memory back."""
        self.engine.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def load(path: Path | str, *, backend: str | None = None, threads: int = 0) -> Pipeline:
    """Open the bundle in the folder ``path`` on this device; see `open_pipeline`."""
    return open_pipeline(open_bundle(Path(path)), backend=backend, threads=threads)


def open_pipeline(bundle: Bundle, *, backend: str | None = None, threads: int = 0) -> Pipeline:
    """Open a bundle's graphs, compiled first where the backend needs that.

    ``backend`` overrides the target's choice for every graph; ``threads`` 0 means all cores.

    Raises:
        BackendError: an engine is missing or refuses a graph.
    """
    manifest = bundle.manifest
    tidy = manifest.config["text"]["clean_up_tokenization_spaces"]
    tokenizer = Tokenizer(bundle.read(manifest.assets["tokenizer"]), clean_up_spaces=tidy)
    backends = {graph.component: backend or manifest.target.backends[graph.role] for graph in manifest.graphs}
    engine = Engine(manifest.graphs, _open_sessions(bundle, backends, threads))
    return Pipeline(find.family(manifest.family), manifest.config, tokenizer, engine, manifest.tasks, backends)


def _open_sessions(bundle: Bundle, backends: dict[str, str], threads: int) -> dict[str, Session]:
    sessions: dict[str, Session] = {}
    try:
        for graph in bundle.manifest.graphs:
            backend = find.backend(backends[graph.component])
            sessions[graph.component] = backend.open(graph, ready(bundle, graph, backend), threads)
    except BaseException:
        for session in sessions.values():
            session.close()
        raise
    return sessions


def _reads(graph: Graph, names: tuple[str, ...]) -> bool:
    return any(port.name in names for port in graph.inputs)
