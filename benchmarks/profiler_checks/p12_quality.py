"""P12: planted wrong answers are found, with the difference, the interval and the p that scipy gives."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from scipy import stats

from mmedge.profiling.numbers.quality import scores_of
from mmedge.profiling.run import Run, Score

MADE_UP = Path(__file__).parents[2] / "tests" / "profiling" / "made_up_runs.py"
INPUTS = 200
PLANTED = (3, 50, 99, 100, 199)
CASES: dict[str, tuple[Collection[int], Collection[int]]] = {
    "5 of 200": (PLANTED, ()),
    "30 of 200, baseline 20": (range(0, 30), range(20, 40)),
    "all": (range(INPUTS), ()),
}
"""Which inputs the candidate answers wrongly, and which the baseline."""


def made_up_run() -> Callable[..., Run]:
    spec = spec_from_file_location("made_up_runs", MADE_UP)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.made_up_run


def score(wrong: Collection[int], base_wrong: Collection[int]) -> Score:
    """Of the candidate."""
    run = made_up_run()(inputs=INPUTS, rounds=INPUTS, task="ask", finished=False)
    items = tuple(replace(item, expected=("yes",)) for item in run.inputs.items)
    answers = tuple(
        replace(each, text="no" if each.input in (wrong if each.c == 1 else base_wrong) else "yes")
        for each in run.answers
    )
    run = replace(run, inputs=replace(run.inputs, items=items), answers=answers)
    return next(each for each in scores_of(run) if each.c == 1)


def compared(wrong: Collection[int], base_wrong: Collection[int]) -> dict[str, object]:
    """Ours beside scipy's."""
    ours = score(wrong, base_wrong)
    lost = np.array([100.0 * ((at in wrong) - (at in base_wrong)) for at in range(INPUTS)])
    exchanged = int((lost > 0).sum()), int((lost < 0).sum())
    p = stats.binomtest(exchanged[0], sum(exchanged)).pvalue
    if lost.std():
        bootstrap = stats.bootstrap(
            (lost,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
        )
        theirs = tuple(bootstrap.confidence_interval)
    else:
        theirs = (lost[0], lost[0])
    found = {at for at, value in enumerate(ours.per_input) if value == 0.0}
    return {
        "found": found == set(wrong),
        "lost": [ours.lost, float(lost.mean())],
        "interval": [[ours.low, ours.high], [float(x) for x in theirs]],
        "mcnemar": [ours.mcnemar, float(p)],
        "verdict": ours.verdict,
        "passed": found == set(wrong)
        and ours.lost is not None
        and abs(ours.lost - lost.mean()) < 1e-9
        and ours.mcnemar is not None
        and abs(ours.mcnemar - p) < 1e-9
        and bool(np.allclose((ours.low, ours.high), theirs, atol=0.5)),
    }


def check(quick: bool) -> dict[str, object]:
    """Always the same, ``quick`` or not."""
    found = {name: compared(*case) for name, case in CASES.items()}
    return {
        "check": "P12",
        "bound": "all planted answers found; difference and p equal to scipy's, interval within half a point",
        "counts": f"{INPUTS} inputs, 10,000 resamples",
        "measured": found,
        "passed": all(each["passed"] for each in found.values()),
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
