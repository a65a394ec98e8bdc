"""A bundle ready to answer: pictures and a text in, a stream of text out, every stage timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.family import Prompt, Request, Turn
from mmedge.core.names import shown
from mmedge.core.ports import Tensors
from mmedge.errors import BundleError, UsageError
from mmedge.media.text import StreamingDetokenizer
from mmedge.runtime.clock import Clock
from mmedge.runtime.decode import decode, picking
from mmedge.runtime.lookup import decode_ahead
from mmedge.runtime.model import Model, check_task, open_model
from mmedge.runtime.pick import Pick, greedy
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


class Pipeline(Model):
    """Answers requests; made by `load`."""

    look_ahead = False
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
        check_task(task, self.tasks)
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
        check_task(task, self.tasks)
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

    Tokens are guessed from the text so far, and checked several at once, if it shall ``look_ahead`` and the engine can;
    the rest is as for `open_model`.
    """
    pipeline = open_model(bundle, Pipeline, backend=backend, threads=threads, remember=remember)
    pipeline.look_ahead = look_ahead
    return pipeline
