"""A worker that answers in 10 ms, and stands still for 500 ms every 10 s of the machine's clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mmedge.profiling.messages import Load
from mmedge.profiling.worker import main
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Answer, Piece

ANSWER_S, STALL_S, EVERY_S = 0.010, 0.500, 10.0


def answer_s(now_s: float) -> float:
    """What an answer takes that is begun now: one that meets the stall waits for its end."""
    into = now_s % EVERY_S
    return ANSWER_S + (EVERY_S - into if into + ANSWER_S > EVERY_S - STALL_S else 0.0)


class Stalling:
    """Its answers say nothing."""

    def __init__(self) -> None:
        self.backends: dict[str, str] = {}

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
        with clock.stage("encode"):
            time.sleep(answer_s(time.perf_counter()))
        show(Piece("a", 1, 0.0))
        return Answer("a", (1,), "stop", clock.stages_ms)

    def close(self) -> None:
        """There is nothing to give back."""


def opener(path: Path, *, backend: str | None, threads: int) -> Stalling:
    return Stalling()


def nothing_to_check(order: Load) -> tuple[str, ...]:
    return ()


if __name__ == "__main__":
    main(opener, nothing_to_check)
