"""P1: identical programs on a disturbed machine are hardly ever called faster or slower.

Real runs of the profiler under noise, in which all candidates are the same. Any two of them are a comparison; those of
one run share processes, so that they are less independent than they are many. Beside them what one harness after
another would say of the same answers: all rounds of one process against all rounds of a later process, with Welch's
interval (as after two runs of any harness, or two arms in turn).
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from itertools import combinations, pairwise, permutations

import numpy as np
from known_runs import noise, run_of
from scipy import stats

from mmedge.profiling.numbers.estimates import Table, table_of
from mmedge.profiling.numbers.ratios import estimate, judge, log_ratios

MARGIN = 0.03
MOST = 0.05
"""Share of comparisons that may come out as a difference."""
IDENTICAL, PROCESSES, ROUNDS = 8, 5, 100


def interleaved(table: Table) -> Counter[str]:
    """Verdicts of the profiler on every pair, and how often an interval leaves out 1."""
    found: Counter[str] = Counter()
    answers = table.values["answer_ms"]
    for one, two in combinations(range(len(answers)), 2):
        ratio = estimate(log_ratios(answers[one], answers[two]), table.processes)
        assert ratio
        found[judge([ratio], MARGIN)[0][0]] += 1
        found["intervals without 1"] += ratio.low > 0 or ratio.high < 0
    return found


def in_turn(table: Table) -> Counter[str]:
    """The same of one process after another."""
    found: Counter[str] = Counter()
    logs, bound = np.log(table.values["answer_ms"]), math.log1p(MARGIN)
    groups = np.unique(table.processes)
    for group, later in pairwise(groups):
        for one, two in permutations(range(len(logs)), 2):
            first, second = logs[one][table.processes == group], logs[two][table.processes == later]
            low, high = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
            found["comparisons"] += 1
            found["faster or slower"] += bool(low > bound or high < -bound)
            found["intervals without 1"] += bool(low > 0 or high < 0)
    return found


def check(quick: bool) -> dict[str, object]:
    """Twelve runs of about half a minute, ``quick`` one."""
    began, runs = time.monotonic(), 1 if quick else 12
    ours: Counter[str] = Counter()
    theirs: Counter[str] = Counter()
    floors, runs_with = [], 0
    with noise() as source:
        for seed in range(runs):
            run = run_of([0.0] * (IDENTICAL - 1), PROCESSES, ROUNDS, seed)
            table = table_of(run.rounds, len(run.candidates), only_answers=True)
            verdicts = interleaved(table)
            runs_with += verdicts["faster"] + verdicts["slower"] > 0
            ours += verdicts
            theirs += in_turn(table)
            floors.append(round(run.results.aa.floor, 4) if run.results.aa else None)
    comparisons = runs * math.comb(IDENTICAL, 2)
    false = ours["faster"] + ours["slower"]
    return {
        "check": "P1",
        "bound": f"at most {MOST:.0%} false differences (margin {MARGIN:.0%})",
        "counts": f"{runs} runs of {IDENTICAL} identical candidates, {PROCESSES} groups of processes, {ROUNDS} rounds: "
        f"{comparisons} comparisons; asked for: 100 runs",
        "headline": f"{false} of {comparisons} comparisons came out as a difference; comparisons of one run share "
        f"processes; runs that are independent of each other: {runs}, of which with a difference: {runs_with}",
        "noise": source,
        "noise_floors": floors,
        "false_differences": false,
        "comparisons": comparisons,
        "verdicts": {name: ours[name] for name in ("faster", "slower", "same", "inconclusive")},
        "intervals_without_1": ours["intervals without 1"] / comparisons,
        "one_after_another": {
            "comparisons": theirs["comparisons"],
            "false_differences": theirs["faster or slower"],
            "intervals_without_1": theirs["intervals without 1"] / theirs["comparisons"],
        },
        "seconds": round(time.monotonic() - began, 1),
        "passed": false <= MOST * comparisons,
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
