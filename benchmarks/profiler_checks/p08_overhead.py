"""P8: being profiled makes an answer of 5 ms or more at most 0.5 % longer.

    python benchmarks/profiler_checks/p08_overhead.py

The real pipeline, its engine replaced by a recording, so that nothing but Python code runs: what an answer costs as a
worker is asked for it, less what it costs anyone else, both by the quarter of answers that other programs disturbed
least; as a share of the fastest answer on a real engine. Beside it the ratio of all answers on a real engine; and what
the clock of the stages costs, which always runs.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
from known_bundles import ENGINES, Known, known_bundles

import mmedge
from mmedge.profiling.messages import Answered, Ask, Load, read_reply, send
from mmedge.profiling.worker import Worker
from mmedge.runtime.clock import Clock
from mmedge.runtime.decode import Reading
from mmedge.runtime.pipeline import Pipeline

MOST = 0.005
ANSWER_MS = 5.0


NOTHING = nullcontext()


class NoClock(Clock):
    """Times nothing."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        return NOTHING


def record(pipeline: Pipeline, known: Known) -> None:
    """Let the pipeline answer as it does once from now on, without its engine."""
    engine, tokens = pipeline.engine, []
    values = {"nothing": np.zeros(1, np.float32)}
    choose = engine.choose

    def listening(reading: Reading) -> int:
        tokens.append((int(reading.positions[0, 0]), choose(reading)))
        return tokens[-1][1]

    engine.choose = listening
    pipeline.answer(known.task, known.picture.read_bytes(), known.text)
    recorded = dict(tokens)
    engine.choose = lambda reading: recorded[int(reading.positions[0, 0])]
    engine.encode = lambda prompt: values
    engine.begin = lambda values, prompt: 0


class Pairs(NamedTuple):
    """Nanoseconds of answers with the profiler and without, asked for in turns."""

    on: np.ndarray
    off: np.ndarray
    tokens: int

    @property
    def extra_us(self) -> float:
        return float(np.percentile(self.on, 25) - np.percentile(self.off, 25)) / 1e3


def pairs(
    pipeline: Pipeline, known: Known, count: int, clock: Callable[[], int], off_clock: Callable[[], Clock] = Clock
) -> Pairs:
    """``off_clock`` times the stages of those that are not profiled."""
    data, off = known.picture.read_bytes(), []

    def without() -> None:
        begin = clock()
        pipeline.answer(known.task, data, known.text, clock=off_clock())
        off.append(clock() - begin)

    def orders() -> Iterator[bytes]:
        yield _line(Load(str(known.bundle), None, 0))
        for number in range(count):
            if number % 2:
                without()
            yield _line(Ask(known.task, str(known.picture), known.text))
            if not number % 2:
                without()

    replies = io.BytesIO()
    Worker(lambda *_, **__: pipeline, clock_ns=clock).serve(orders(), replies)
    answered = [reply for reply in map(read_reply, replies.getvalue().splitlines()) if isinstance(reply, Answered)]
    return Pairs(np.array([each.answer_ns for each in answered]), np.array(off), len(answered[0].tokens))


def _line(order: Load | Ask) -> bytes:
    line = io.BytesIO()
    send(order, line)
    return line.getvalue()


def check(quick: bool) -> dict[str, object]:
    """2,000 pairs without an engine and 500 with one; ``quick`` a fifth."""
    known, few = known_bundles()[0], 5 if quick else 1
    with mmedge.load(known.bundle, backend=ENGINES[0]) as pipeline:
        real = pairs(pipeline, known, 500 // few, time.perf_counter_ns)
        record(pipeline, known)
        pairs(pipeline, known, 50, time.perf_counter_ns)
        profiled = pairs(pipeline, known, 2000 // few, time.perf_counter_ns)
        clocked = pairs(pipeline, known, 2000 // few, time.perf_counter_ns, NoClock)
    fastest_ms = float(min(real.on.min(), real.off.min())) / 1e6
    share = profiled.extra_us / 1e3 / fastest_ms
    return {
        "check": "P8",
        "bound": f"{MOST:.1%} of answers of {ANSWER_MS:g} ms and more",
        "pairs": len(profiled.on),
        "tokens": real.tokens,
        "fastest_answer_ms": round(fastest_ms, 2),
        "extra_us": round(profiled.extra_us, 2),
        "share": round(share, 5),
        "stages_clock_us": round(clocked.extra_us - profiled.extra_us, 2),
        "wall": {"pairs": len(real.on), **_interval(real.on / real.off)},
        "passed": share <= MOST and fastest_ms >= ANSWER_MS,
    }


def _interval(ratios: np.ndarray) -> dict[str, float]:
    """The median, and its 95 % interval by order statistics."""
    ordered, reach = np.sort(ratios), int(1.96 * np.sqrt(len(ratios)) / 2)
    places = {"ratio": len(ordered) // 2, "low": len(ordered) // 2 - reach, "high": len(ordered) // 2 + reach}
    return {name: round(float(ordered[place]), 4) for name, place in places.items()}


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
