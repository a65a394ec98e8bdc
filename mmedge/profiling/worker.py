"""The process of one candidate: opens a bundle and answers when it is told to.

Orders come on standard input and replies leave on what was standard output; engines that print go to standard error.
Another program takes part by serving the same orders in an environment of its own: it gives `main` an opener.
"""

# ruff: noqa: E402
from __future__ import annotations

import time

BEGAN_NS = time.perf_counter_ns()
"""Before the other imports, which are timed too."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Protocol, TypeAlias

from mmedge.core import find
from mmedge.core.bundle import open_bundle
from mmedge.core.children import live_with_parent
from mmedge.core.ledger import Ledger, listening
from mmedge.errors import MmedgeError
from mmedge.media.image import read_picture
from mmedge.profiling.choosing import TASK, Choosing
from mmedge.profiling.messages import (
    Answered,
    Ask,
    Failed,
    Hello,
    Load,
    Loaded,
    Order,
    Reply,
    Verified,
    read_order,
    send,
)
from mmedge.runtime.clock import Clock
from mmedge.runtime.encoder import open_encoder
from mmedge.runtime.pipeline import Answer, Piece, open_pipeline
from mmedge.runtime.verify import verify


class Answering(Protocol):
    """What a worker needs of a `Pipeline` or a `Choosing`."""

    @property
    def backends(self) -> dict[str, str]: ...

    def answer(
        self,
        task: str,
        picture: bytes,
        text: str | None,
        *,
        limit: int | None,
        show: Callable[[Piece], None],
        clock: Clock,
    ) -> Answer:
        """From the bytes of a picture file to the text, each stage under ``clock``."""
        ...

    def close(self) -> None: ...


def golden_failures(order: Load) -> tuple[str, ...]:
    """Which golden samples of a bundle are not answered as they should be, and in what."""
    found = verify(open_bundle(Path(order.bundle)), backend=order.backend, threads=order.threads)
    return tuple(
        f"{check.sample}: {check.what} is {check.value:.4g}, the bound is {check.bound:.4g}"
        for check in found.checks
        if not check.passed
    )


Check: TypeAlias = Callable[[Load], tuple[str, ...]]
"""What is wrong with the answers of a bundle; nothing if nothing is."""


def afresh(path: Path, *, backend: str | None = None, threads: int = 0) -> Answering:
    """A bundle that remembers nothing of what it was asked before: the same inputs are asked again and again."""
    bundle = open_bundle(path)
    if TASK in bundle.manifest.tasks:
        return Choosing(open_encoder(bundle, backend=backend, threads=threads))
    return open_pipeline(bundle, backend=backend, threads=threads)


class Worker:
    """Carries out orders with the bundle that the first one opened."""

    def __init__(
        self,
        opener: Callable[..., Answering] = afresh,
        check: Check = golden_failures,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._opener = opener
        self._check = check
        self._clock_ns = clock_ns
        self._pipeline: Answering | None = None
        self._loaded: Load | None = None

    def serve(self, orders: Iterable[bytes], replies: IO[bytes]) -> None:
        """Reply to every order until there are no more. What is no MmedgeError is a bug, and ends the process."""
        send(Hello(BEGAN_NS, time.perf_counter_ns()), replies)
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
        return self._verify()

    def _load(self, order: Load) -> Loaded:
        ledger = Ledger()
        began = self._clock_ns()
        with listening(ledger):
            self._pipeline = self._opener(Path(order.bundle), backend=order.backend, threads=order.threads)
        ended = self._clock_ns()
        self._loaded = order
        engines = self._pipeline.backends
        versions = {name: find.backend(name).version() for name in {*engines.values()}}
        versions |= getattr(self._pipeline, "software", {})  # of another program
        return Loaded(began, ended, engines, versions, ledger.seconds, ledger.compiled)

    def _verify(self) -> Verified:
        """With graphs opened anew: the pipeline makes way, and cannot be asked any more."""
        order = self._loaded
        assert order and self._pipeline, "verified before a bundle was opened"
        self._pipeline.close()
        self._pipeline = None
        return Verified(self._check(order))

    def _answer(self, order: Ask) -> Answered:
        assert self._pipeline, "asked before a bundle was opened"
        picture = read_picture(Path(order.file))
        clock = _clock(order.weigh)
        times: list[int] = []

        def show(piece: Piece) -> None:
            if piece.token is not None:
                times.append(self._clock_ns())

        start = self._clock_ns()
        answer = self._pipeline.answer(order.task, picture, order.text, limit=order.limit, show=show, clock=clock)
        end = self._clock_ns()
        return Answered(
            text=answer.text,
            tokens=answer.tokens,
            start_ns=start,
            answer_ns=end - start,
            stages_ns=clock.stages_ns,
            token_ns=tuple(moment - start for moment in times),
            spans=tuple((name, begun - start, ended - start) for name, begun, ended in clock.spans if order.spans),
            memory=getattr(clock, "peaks", {}),
        )


def _clock(weigh: bool) -> Clock:
    """One that also weighs, or not."""
    if not weigh:
        return Clock()
    from mmedge.profiling.machine.memory import WeighingClock

    return WeighingClock()


def main(
    opener: Callable[..., Answering] = afresh,
    check: Check = golden_failures,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> None:
    """Serve the parent process, whose number is the last argument."""
    replies = live_with_parent()
    Worker(opener, check, clock_ns).serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
