"""Runs with everything in them, and the page made of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from mmedge.profiling.numbers.estimates import finished
from mmedge.profiling.run import Absolute, Fit, Load, Run, Score, Worst
from mmedge.profiling.showing.html.page import page

NAMES = ("scenes float32 onnxruntime", "scenes int8 onnxruntime", "scenes int8 openvino")


@pytest.fixture(scope="session")
def full_run(make_run: Callable[..., Run]) -> Callable[..., Run]:
    """A run with something for every part of the page."""

    def make(names: tuple[str, ...] = NAMES, **told: Any) -> Run:
        run = make_run(names, **{"rounds": 60, "extras": True, **told})
        own, inputs = range(len(names)), len(run.inputs.items)
        bounds = [Absolute(c, "answer_ms", "p90", 50.0 / (c + 1), None, 55.0 / (c + 1), 60) for c in own]
        results = replace(
            run.results,
            abs=(*run.results.abs, *bounds),
            fits=tuple(Fit(c, "answer_ms", "megapixels", 20.0, 5.0, 4.8, 5.2, 0.9, 60) for c in own),
            worst=tuple(Worst(c, 7, 80.0, 2.0) for c in own),
        )
        ones = (1.0,) * inputs
        quality = tuple(
            Score(c, "exact", ones, 1.0 - 0.1 * c, ones, 1.0, 0.0, 10.0 * c, 9.0 * c, 11.0 * c, None, "accepted")
            for c in own
        )
        load = tuple(
            Load(
                c,
                rate,
                100,
                "answer_ms<200",
                0.9 * rate,
                rate < 10,
                response_ms={"median": 40 + rate, "p90": 90 + rate},
            )
            for c in own
            for rate in (5.0, 10.0, 15.0)
        )
        return replace(run, results=results, quality=quality, load=load)

    return make


@pytest.fixture(scope="session")
def full_page(full_run: Callable[..., Run]) -> str:
    return page(full_run())


@pytest.fixture(scope="session")
def two_tasks(make_run: Callable[..., Run]) -> Run:
    """Half captions that are known, half questions without a known answer, which take as long again; its first
    candidate in float32 is not the baseline."""
    run = make_run(NAMES, rounds=60, inputs=16, changed=10, finished=False, extras=True)
    items = tuple(
        replace(item, task="ask", text="what is it?", expected=()) if at % 2 else item
        for at, item in enumerate(run.inputs.items)
    )
    twice = tuple(replace(s, answer_ns=2 * s.answer_ns) if s.input % 2 else s for s in run.samples)
    first, second, third, twin = run.candidates
    coarse = (replace(first, precisions=second.precisions), replace(second, precisions=first.precisions), third)
    coarse = (*coarse, replace(twin, precisions=second.precisions))
    return finished(replace(run, candidates=coarse, samples=twice, inputs=replace(run.inputs, items=items)))
