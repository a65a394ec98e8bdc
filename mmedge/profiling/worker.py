"""The process of one candidate: opens a bundle and answers when it is told to.

Orders come on standard input and replies leave on what was standard output; engines that print go to standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Protocol

from mmedge.core import find
from mmedge.core.children import live_with_parent
from mmedge.errors import MmedgeError
from mmedge.profiling.messages import Answered, Ask, Failed, Hello, Load, Loaded, Order, Reply, read_order, send
from mmedge.profiling.meters import memory_of
from mmedge.runtime.pipeline import Answer, Piece, load


class Answering(Protocol):
    """What a worker needs of a `Pipeline`."""

    @property
    def backends(self) -> dict[str, str]: ...

    def answer(
        self, task: str, picture: Path, text: str | None, *, limit: int | None, show: Callable[[Piece], None]
    ) -> Answer: ...


class Worker:
    """Carries out orders with the bundle that the first one opened."""

    def __init__(self, opener: Callable[..., Answering] = load, clock: Callable[[], float] = time.perf_counter) -> None:
        self._opener = opener
        self._clock = clock
        self._pipeline: Answering | None = None

    def serve(self, orders: Iterable[bytes], replies: IO[bytes]) -> None:
        """Reply to every order until there are no more. What is no MmedgeError is a bug, and ends the process."""
        send(Hello(), replies)
        for line in orders:
            try:
                reply = self._carry_out(read_order(line))
            except MmedgeError as error:
                reply = Failed(type(error).__name__, error.message, error.hint)
            send(reply, replies)

    def _carry_out(self, order: Order) -> Reply:
        if isinstance(order, Load):
            return self._load(order)
        if isinstance(order, Ask):
            return self._answer(order)
        return memory_of()

    def _load(self, order: Load) -> Loaded:
        started = self._clock()
        self._pipeline = self._opener(Path(order.bundle), backend=order.backend, threads=order.threads)
        seconds = self._clock() - started
        engines = self._pipeline.backends
        return Loaded(seconds, engines, {name: find.backend(name).version() for name in {*engines.values()}})

    def _answer(self, order: Ask) -> Answered:
        assert self._pipeline, "asked before a bundle was opened"
        times: list[float] = []

        def show(piece: Piece) -> None:
            if piece.token is not None:
                times.append(self._clock())

        picture = Path(order.picture)
        started = self._clock()
        answer = self._pipeline.answer(order.task, picture, order.text, limit=order.limit, show=show)
        ended = self._clock()
        return Answered(
            text=answer.text,
            answer_ms=_milliseconds(ended - started),
            stages_ms={name: round(value, 4) for name, value in answer.stages_ms.items()},
            token_ms=tuple(_milliseconds(moment - started) for moment in times),
        )


def main(opener: Callable[..., Answering] = load, clock: Callable[[], float] = time.perf_counter) -> None:
    """Serve the parent process, whose number is the last argument."""
    replies = live_with_parent()
    Worker(opener, clock).serve(sys.stdin.buffer, replies)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 4)


if __name__ == "__main__":
    main()
