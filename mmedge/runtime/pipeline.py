"""A bundle ready to answer: pictures and a text in, a stream of text out, every stage timed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.backend import Backend, Session
from mmedge.core.bundle import Bundle, Graph, open_bundle
from mmedge.core.family import Config, Family, Prompt, Request, Turn
from mmedge.core.names import shown
from mmedge.core.ports import Tensors
from mmedge.errors import BundleError, ContextError, UsageError
from mmedge.media.text import StreamingDetokenizer, Tokenizer
from mmedge.runtime.choose import open_chosen
from mmedge.runtime.clock import Clock
from mmedge.runtime.decode import decode, picking
from mmedge.runtime.engine import Engine, arranging
from mmedge.runtime.lookup import decode_ahead
from mmedge.runtime.pick import Pick, greedy
from mmedge.runtime.ready import ready
from mmedge.runtime.subjects import Source, Subject, apart, look
from mmedge.runtime.together import decode_together

LIMIT = 64
"""Tokens of an answer unless the caller or the checkpoint's generation config says otherwise."""


class Piece(Struct, frozen=True):
    """Text that is final; ``ms`` since the decoder began."""

    text: str
    token: int | None
    ms: float


Show: TypeAlias = Callable[[Piece], None]


class Answer(Struct, frozen=True):
    """A finished answer and what it cost."""

    text: str
    tokens: tuple[int, ...]
    finish: str
    """``stop`` when the model ended it, ``length`` at the limit."""
    stages_ms: dict[str, float]
    """``read``, ``decode`` (file to pixels), ``preprocess``, ``encode``, ``prefill``, ``decode_loop``, ``detokenise``:
    milliseconds; of answers that were made ``together``, this one's share."""
    warnings: tuple[str, ...] = ()
    together: int = 1
    """How many answers were made at once."""


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
        *,
        look_ahead: bool = False,
    ) -> None:
        self.family = family
        self.config = config
        self.tokenizer = tokenizer
        self.engine = engine
        self.tasks = tasks
        self.backends = backends or {}
        self.look_ahead = look_ahead
        """Whether tokens are guessed from the text so far where the engine can check several at once."""

    def caption(
        self,
        picture: Subject,
        prompt: str | None = None,
        *,
        pick: Pick = greedy,
        limit: int | None = None,
        show: Show | None = None,
    ) -> Answer:
        """Describe a picture or a video, going on from ``prompt`` if there is one."""
        return self.answer("caption", picture, prompt, pick=pick, limit=limit, show=show)

    def ask(
        self,
        picture: Subject,
        question: str,
        *,
        pick: Pick = greedy,
        limit: int | None = None,
        show: Show | None = None,
    ) -> Answer:
        """Answer a question about a picture or a video."""
        return self.answer("ask", picture, question, pick=pick, limit=limit, show=show)

    def answer(
        self,
        task: str,
        subjects: Subject | Sequence[Subject],
        text: str | None = None,
        *,
        earlier: tuple[Turn, ...] = (),
        pick: Pick = greedy,
        limit: int | None = None,
        show: Show | None = None,
        reject_animated: bool = False,
        clock: Clock | None = None,
    ) -> Answer:
        """Read, look and answer; ``show`` sees each piece of text as soon as it is final. ``earlier`` is what was said
        before. ``clock`` times the stages for those who want to know more of them than the answer says.

        Raises:
            InputError: the picture or the text cannot be used.
            UsageError: the bundle cannot do this task.
        """
        self._check_task(task)
        clock = clock or Clock()
        given, video = apart(subjects)
        seen = [look(picture, clock, reject_animated=reject_animated) for picture in given]
        with clock.stage("preprocess"):
            images = tuple(picture.pixels for picture in seen)
            prompt = self.prepare(Request(images, text, earlier, video.frames, video.seconds))
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
            warnings=(*(warning for picture in seen for warning in picture.warnings), *video.warnings),
        )

    def answer_together(
        self, task: str, pictures: Sequence[Source], text: str | None = None, *, limit: int | None = None
    ) -> list[Answer]:
        """The same asked of each picture, all at once where the engine can (`goes_together`); the likeliest tokens.

        Raises:
            InputError: a picture or the text cannot be used.
            UsageError: the bundle cannot do this task.
        """
        if not self.goes_together or len(pictures) < 2:
            return [self.answer(task, picture, text, limit=limit) for picture in pictures]
        self._check_task(task)
        clock = Clock()
        seen = [look(picture, clock) for picture in pictures]
        with clock.stage("preprocess"):
            prompts = [self.prepare(Request((picture.pixels,), text)) for picture in seen]
        with clock.stage("encode"):
            values = [self.engine.encode(prompt) for prompt in prompts]
        limits = [self._limit(prompt, limit) for prompt in prompts]
        with clock.stage("decode_loop"):
            found = decode_together(self.engine, prompts, values, limits)
        shares = {name: spent / len(pictures) for name, spent in clock.stages_ms.items()}
        return [
            Answer(
                self.tokenizer.decode(tokens).strip(),
                tuple(tokens),
                "length" if len(tokens) >= most else "stop",
                shares,
                picture.warnings,
                len(pictures),
            )
            for tokens, most, picture in zip(found, limits, seen, strict=True)
        ]

    @property
    def goes_together(self) -> bool:
        """Whether several answers can go on at once, each step reading the weights once for all of them."""
        return self.engine.goes_together

    def _check_task(self, task: str) -> None:
        if task not in self.tasks:
            raise UsageError(f"this bundle cannot `{task}`", hint=f"it can: {', '.join(self.tasks)}")

    def prepare(self, request: Request) -> Prompt:
        """The request as the family's numbers.

        Raises:
            InputError: the request cannot be used.
            BundleError: the configuration, which may be anyone's, cannot be.
        """
        try:
            prompt = self.family.prepare(self.config, self.tokenizer, request)
            if type(prompt.capacity) is not int:
                raise TypeError(f"{prompt.capacity!r} is no number of positions")
        except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            reason = shown(f"{type(error).__name__}: {error}", 200)
            raise BundleError(f"the bundle's configuration cannot be used: {reason}") from error
        return self._fitted(prompt)

    def _fitted(self, prompt: Prompt) -> Prompt:
        """A fixed cache may be shorter than what the model could read."""
        slots = [graph.cache.capacity for graph in self.engine.graphs if graph.cache and graph.cache.capacity]
        capacity = min([prompt.capacity, *slots])
        if slots and len(prompt.tokens) >= capacity:
            raise ContextError(
                f"the text is {len(prompt.tokens)} tokens long, this bundle has room for {capacity - 1}",
                hint="shorten it, or export with a larger `total` in the recipe's `sizes`",
            )
        return replace(prompt, capacity=capacity)

    def stream(
        self, prompt: Prompt, *, pick: Pick = greedy, limit: int | None = None, clock: Clock | None = None
    ) -> Iterator[Piece]:
        """Yield text as it becomes final, until a stop token or ``limit`` tokens."""
        clock = clock or Clock()
        with clock.stage("encode"):
            values = self.engine.encode(prompt)
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
            read = self.engine.begin(values, prompt)
            if pick is greedy and self.look_ahead and self.engine.looks_ahead:
                tokens = decode_ahead(self.engine, prompt, limit=limit, read=read)
            else:
                choose = self.engine.choose if pick is greedy else picking(self.engine.step, pick)
                tokens = decode(choose, prompt, limit=limit, read=read)
        stage = "prefill"
        while True:
            with clock.stage(stage):
                token = next(tokens, None)
            if token is None:
                return
            yield token
            stage = "decode_loop"

    def _limit(self, prompt: Prompt, limit: int | None) -> int:
        room = prompt.capacity - len(prompt.tokens)
        asked = self._own_limit() if limit is None else limit
        if asked < 1:
            raise UsageError(f"the length limit is {asked}, it must be at least 1")
        return min(asked, room)

    def _own_limit(self) -> int:
        """What the checkpoint's generation config says."""
        own = self.config.get("generation", {}).get("max_new_tokens")
        if own is not None and (type(own) is not int or own < 1):
            raise BundleError(
                f"the bundle's configuration cannot be used: max_new_tokens is {shown(repr(own))}, no length"
            )
        return own or LIMIT

    def close(self) -> None:
        """Give the engines' memory back."""
        self.engine.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(path: Path | str, *, backend: str | None = None, threads: int = 0, look_ahead: bool = False) -> Pipeline:
    """Open the bundle in the folder ``path`` on this device; see `open_pipeline`. What it has seen it remembers: a
    second question about a picture does not encode it again.

    To ``look_ahead`` pays where answers repeat at length what was said before, up to twice as fast; elsewhere it costs
    up to 5 % of a full-size model's tokens a second, and 25 % of a tiny one's (benchmarks/results/lookup.json)."""
    return open_pipeline(
        open_bundle(Path(path)), backend=backend, threads=threads, remember=True, look_ahead=look_ahead
    )


def open_pipeline(
    bundle: Bundle, *, backend: str | None = None, threads: int = 0, remember: bool = False, look_ahead: bool = False
) -> Pipeline:
    """Open a bundle's graphs, compiled first where the backend needs that.

    ``backend`` overrides the target's choice for every graph, and its fall-backs; ``threads`` 0 means all cores.
    Features of pictures, and what the cache holds, are used again where they can be if it shall ``remember``; tokens
    are guessed from the text so far, and checked several at once, if it shall ``look_ahead`` and the engine can.

    Raises:
        UsageError: no backend has this name, or there are fewer cores than ``threads``.
        BundleError: its family or its tokenizer cannot be used.
        BackendError: an engine is missing or refuses a graph.
    """
    manifest = bundle.manifest
    _check_threads(threads)
    family = _family_of(bundle)
    tidy = manifest.config["text"]["clean_up_tokenization_spaces"]
    tokenizer = Tokenizer(bundle.read(manifest.assets["tokenizer"]), clean_up_spaces=tidy)

    def open_graph(graph: Graph, chosen: Backend) -> Session:
        own = graph.made_for(chosen.name)
        return chosen.open(own, ready(bundle, own, chosen), threads, manifest.target.options)

    engines, sessions = open_chosen(bundle, backend, open_graph)
    backends = {component: engine.name for component, engine in engines.items()}
    graphs = [graph.made_for(backends[graph.component]) for graph in manifest.graphs]
    engine = Engine(graphs, sessions, arranging(family, manifest.config), remember=remember)
    return Pipeline(family, manifest.config, tokenizer, engine, manifest.tasks, backends, look_ahead=look_ahead)


def _family_of(bundle: Bundle) -> Family:
    try:
        return find.family(bundle.manifest.family)
    except UsageError as error:
        name = shown(bundle.manifest.family)
        raise BundleError(f"bundle `{bundle.path}` is of an unknown family `{name}`", hint=error.hint) from error


def _check_threads(threads: int) -> None:
    cores = os.cpu_count() or 1
    if not 0 <= threads <= cores:
        raise UsageError(f"{threads} threads are asked for, this machine has {cores} cores", hint="0 means all cores")
