"""What `mmedge chat` remembers: what was said, and the pictures that wait for the next message."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from msgspec import Struct

from mmedge.core.family import Prompt, Request, Turn
from mmedge.media.image import Picture
from mmedge.runtime.clock import Clock
from mmedge.runtime.pick import Pick
from mmedge.runtime.pipeline import Pipeline
from mmedge.runtime.subjects import look

LIMIT = 512
"""Tokens of an answer unless the user says otherwise; people who talk can stop it."""

_STAGES = {"prepare": "preprocess", "encode": "encode", "prefill": "prefill", "decode": "decode_loop"}
"""Stages of an answer as users are told them."""


class Seen(Struct, frozen=True):
    """A picture and what the user calls it."""

    name: str
    picture: Picture


def see(path: Path, *, reject_animated: bool = False) -> Seen:
    """Read and decode a picture.

    Raises:
        InputError: it cannot be used.
    """
    return Seen(str(path), look(path, reject_animated=reject_animated))


class Said(Struct, frozen=True):
    """A message with its answer, and what its pictures are called."""

    names: tuple[str, ...]
    turn: Turn


class Reply(Struct, frozen=True):
    """An answer, how it ended, and what it cost."""

    text: str
    tokens: tuple[int, ...]
    finish: str
    """``stop`` when the model ended it, ``length`` at the limit, ``context`` where nothing more can be read,
    ``stopped`` by the user."""
    stages_ms: dict[str, float]
    first_token_ms: float | None
    """From the message to the first text."""
    context_tokens: int
    """Prompt and answer."""
    context_limit: int
    warnings: tuple[str, ...]

    @property
    def tokens_per_second(self) -> float | None:
        """Of those after the first, and of the one that ends the answer; None if there are none."""
        seconds = self.stages_ms.get("decode_loop", 0.0) / 1e3
        steps = len(self.tokens) - (self.finish != "stop")
        return steps / seconds if seconds > 0 and steps > 0 else None


def ended(reply: Reply) -> str | None:
    """What the user should know of how an answer ended."""
    if reply.finish == "stopped":
        return "(stopped)" if reply.text else "(stopped before the first word: the message is not remembered)"
    if reply.finish == "length":
        return f"(cut at {len(reply.tokens)} tokens; --max-tokens allows more)"
    if reply.finish == "context":
        return f"(cut: the model reads at most {reply.context_limit} tokens; /clear forgets what was said)"
    return None


def spent(reply: Reply) -> str:
    """Its times and tokens in a line."""
    stages = ", ".join(f"{title} {reply.stages_ms.get(stage, 0.0):.0f}" for title, stage in _STAGES.items())
    first = "-" if reply.first_token_ms is None else f"{reply.first_token_ms:.0f} ms"
    rate = "-" if reply.tokens_per_second is None else f"{reply.tokens_per_second:.1f}"
    used = f"{reply.context_tokens} of {reply.context_limit} tokens read"
    return f"(first token {first}; {rate} tokens/s; {stages} ms; {used})"


class Conversation:
    """Messages and answers in turn; a message that cannot be answered leaves all as it was."""

    def __init__(self, pipeline: Pipeline, pick: Pick, limit: int | None) -> None:
        self.said: list[Said] = []
        self.waiting: list[Seen] = []
        self._pipeline = pipeline
        self._pick = pick
        self._limit = LIMIT if limit is None else limit

    def clear(self) -> None:
        """Forget what was said; if nothing was, the pictures that wait."""
        (self.said or self.waiting).clear()

    def answer(self, text: str, show: Callable[[str], None], stopping: Callable[[], bool]) -> Reply:
        """Answer a message; ``show`` sees text as soon as it is final, ``stopping`` is asked between the stages and
        tokens. What was answered until then is remembered.

        Raises:
            ContextError: it would be more than the model can read.
            InputError: the message cannot be used.
        """
        answering = _Answering(self._pipeline, show, stopping)
        reply = answering.run(self._request(text), self._pick, self._limit, self._warnings())
        if reply.text or reply.finish != "stopped":
            turn = Turn(self._images(), text, reply.text)
            self.said.append(Said(tuple(seen.name for seen in self.waiting), turn))
            self.waiting = []
        return reply

    def _request(self, text: str) -> Request:
        return Request(self._images(), text, tuple(said.turn for said in self.said))

    def _images(self) -> tuple[np.ndarray, ...]:
        return tuple(seen.picture.pixels for seen in self.waiting)

    def _warnings(self) -> tuple[str, ...]:
        return tuple(f"{seen.name}: {warning}" for seen in self.waiting for warning in seen.picture.warnings)


class _Answering:
    """One answer while it comes."""

    def __init__(self, pipeline: Pipeline, show: Callable[[str], None], stopping: Callable[[], bool]) -> None:
        self._pipeline = pipeline
        self._show = show
        self._clock = _StoppableClock(stopping)
        self._begun = time.perf_counter()
        self._first_ms: float | None = None
        self._text = ""
        self._tokens: list[int] = []

    def run(self, request: Request, pick: Pick, limit: int, warnings: tuple[str, ...]) -> Reply:
        with self._clock.stage("preprocess"):
            prompt = self._pipeline.prepare(request)
        try:
            self._stream(prompt, pick, limit)
        except _Halted:
            finish = "stopped"
        else:
            finish = self._finish(prompt, limit)
        return Reply(
            self._text.strip(),
            tuple(self._tokens),
            finish,
            self._clock.stages_ms,
            self._first_ms,
            len(prompt.tokens) + len(self._tokens),
            prompt.capacity,
            warnings,
        )

    def _stream(self, prompt: Prompt, pick: Pick, limit: int) -> None:
        for piece in self._pipeline.stream(prompt, pick=pick, limit=limit, clock=self._clock):
            if piece.text and self._first_ms is None:
                self._first_ms = (time.perf_counter() - self._begun) * 1e3
            if piece.token is not None:
                self._tokens.append(piece.token)
            self._text += piece.text
            self._show(piece.text)

    def _finish(self, prompt: Prompt, limit: int) -> str:
        room = prompt.capacity - len(prompt.tokens)
        if len(self._tokens) < min(room, limit):
            return "stop"
        return "length" if limit < room else "context"


class _Halted(Exception):
    """The user does not want to hear more."""


class _StoppableClock(Clock):
    """Nothing goes on after the user has had enough; what is under way in an engine is finished first, so that its
    cache holds what we think it does."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        super().__init__()
        self._stopping = stopping

    def stage(self, name: str) -> AbstractContextManager[None]:
        if self._stopping():
            raise _Halted
        return super().stage(name)
