"""P5: stages add up to the answer, and a sleep of 20 ms that is put into one lands there.

    python benchmarks/profiler_checks/p05_stages.py

The sums are of worker processes as the profiler starts them. The sleeps are put into the functions that a stage calls;
the functions' own time and the sleep's true length are taken beside, as both vary on a busy machine.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from known_bundles import ENGINES, Known, known_bundles

import mmedge
from mmedge.profiling.messages import Answered, Ask, Load
from mmedge.profiling.workers import running
from mmedge.runtime import pipeline as runtime
from mmedge.runtime import subjects
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Pipeline

MOST = 0.03
"""Share of an answer that is in no stage."""
SLEEP_S, WITHIN_MS = 0.020, 1.0
STAGES = ("decode", "preprocess", "encode", "prefill", "decode_loop", "detokenise")


def other(answered: Answered) -> float:
    return 1 - sum(answered.stages_ns.values()) / answered.answer_ns


def answers(known: Known, engine: str, count: int) -> list[Answered]:
    """Of a fresh process that is warm."""
    with running(known.name) as worker:
        worker.wait_until_started()
        worker.load(Load(str(known.bundle), engine, 0))
        ask = Ask(known.task, str(known.picture), known.text)
        return [worker.ask(ask) for _ in range(count + 3)][3:]


class Planted:
    """Sleeps once, the first time that one of its functions is called, and knows how long all of them took."""

    def __init__(self) -> None:
        self.inside_ns = 0
        self.slept_ns = 0

    def around(
        self, function: Callable[..., Any], applies: Callable[..., bool] = lambda *_: True
    ) -> Callable[..., Any]:
        def planted(*arguments: Any, **named: Any) -> Any:
            if not applies(*arguments):
                return function(*arguments, **named)
            begin = time.perf_counter_ns()
            if not self.slept_ns:
                time.sleep(SLEEP_S)
                self.slept_ns = time.perf_counter_ns() - begin
            found = function(*arguments, **named)
            self.inside_ns += time.perf_counter_ns() - begin
            return found

        return planted


@contextmanager
def planted(pipeline: Pipeline, stage: str) -> Iterator[Planted]:
    """A sleep in what ``stage`` of the pipeline calls."""
    sleep, engine = Planted(), pipeline.engine
    targets: dict[str, list[tuple[object, str, Callable[..., bool]]]] = {
        "decode": [(subjects, "decode_picture", lambda *_: True)],
        "preprocess": [(pipeline, "prepare", lambda *_: True)],
        "encode": [(engine, "encode", lambda *_: True)],
        "prefill": [(engine, "begin", lambda *_: True), (engine, "choose", lambda reading: reading.is_prompt)],
        "decode_loop": [(engine, "choose", lambda reading: not reading.is_prompt)],
        "detokenise": [(runtime.StreamingDetokenizer, "add", lambda *_: True)],
    }
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in targets[stage]]
    for owner, name, applies in targets[stage]:
        setattr(owner, name, sleep.around(getattr(owner, name), applies))
    try:
        yield sleep
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def sleeps(known: Known, engine: str, repeats: int) -> list[dict[str, object]]:
    """Where each landed: by how much the stage is off from what was put into it and what its functions took."""
    found, data = [], known.picture.read_bytes()
    with mmedge.load(known.bundle, backend=engine) as pipeline:
        pipeline.answer(known.task, data, known.text)
        for _ in range(repeats):
            for stage in STAGES:
                clock = Clock()
                with planted(pipeline, stage) as sleep:
                    pipeline.answer(known.task, data, known.text, clock=clock)
                off_ms = (clock.stages_ns.get(stage, 0) - sleep.inside_ns) / 1e6
                assert sleep.slept_ns >= SLEEP_S * 1e9, f"nothing called in {stage}"
                found.append({"stage": stage, "off_ms": round(off_ms, 3), "passed": abs(off_ms) <= WITHIN_MS})
    return found


def check(quick: bool) -> dict[str, object]:
    """Thirty answers of every pipeline on every engine, and as many sleeps; ``quick`` a third of the answers."""
    known, shares = known_bundles(), []
    for each in known:
        for engine in ENGINES:
            of_answers = [other(answered) for answered in answers(each, engine, 10 if quick else 30)]
            middle = statistics.median(of_answers)
            shares.append(
                {
                    "pipeline": each.name,
                    "engine": engine,
                    "other_median": round(middle, 5),
                    "other_most": round(max(of_answers), 5),
                    "passed": 0 <= middle <= MOST,
                }
            )
    landed = sleeps(known[0], ENGINES[0], 5)
    right = sum(each["passed"] for each in landed)
    return {
        "check": "P5",
        "bound": f"other <= {MOST:.0%} (median of each); {len(landed)} sleeps of 20 ms within {WITHIN_MS:g} ms",
        "other": shares,
        "sleeps": {"right": right, "of": len(landed), "most_off_ms": max(abs(each["off_ms"]) for each in landed)},
        "passed": right == len(landed) and all(each["passed"] for each in shares),
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
