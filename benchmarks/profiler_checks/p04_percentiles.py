"""P4: the true percentile lies below its bound in 99 of 100 cases.

Simulated answers, independent of each other as the bound assumes. Beside it what becomes of that where answers hang
together: then fewer of them are new, and the bound is less sure.
"""

from __future__ import annotations

import json
import math
import sys
import time

import numpy as np
from scipy import stats

from mmedge.profiling.numbers.percentiles import bound_of, samples_needed, slower_allowed

WITHIN = 0.99
CASES = ((0.9, 64), (0.95, 130), (0.99, 459), (0.99, 662), (0.99, 1_000), (0.999, 6_636))
"""Percentiles, and numbers of answers."""
CARRIED = 0.5


def holds(chance: np.random.Generator, share: float, count: int, carried: float = 0.0) -> bool:
    """One case with answers whose logarithms are normal."""
    logs = chance.standard_normal(count)
    for at in range(1, count if carried else 1):
        logs[at] = carried * logs[at - 1] + math.sqrt(1 - carried**2) * logs[at]
    found = bound_of(np.exp(logs), share)
    assert found.high is not None and found.enough
    return bool(found.high >= np.exp(stats.norm.ppf(share)))


def exactly(share: float, count: int) -> float:
    """The chance that more answers than are allowed above the bound lie above the true percentile, by scipy."""
    allowed = slower_allowed(count, share)
    assert allowed is not None
    return float(stats.binom.sf(allowed, count, 1 - share))


def check(quick: bool) -> dict[str, object]:
    """2,000 cases of each (``quick`` 300)."""
    began, chance, cases = time.monotonic(), np.random.default_rng(4), 300 if quick else 2_000
    found = {
        f"p{share * 100:g} of {count}": float(np.mean([holds(chance, share, count) for _ in range(cases)]))
        for share, count in CASES
    }
    exact = {f"p{share * 100:g} of {count}": exactly(share, count) for share, count in CASES}
    together = float(np.mean([holds(chance, 0.99, 662, CARRIED) for _ in range(min(cases, 500))]))
    tolerance = 3 * math.sqrt(WITHIN * (1 - WITHIN) / cases)
    return {
        "check": "P4",
        "bound": f"true percentile below the bound in 99 % by the formula, in simulation but for {tolerance:.2%}",
        "counts": f"{cases} cases of each of {len(CASES)} kinds",
        "measured": found,
        "by_the_formula": exact,
        "answers_that_hang_together": {"carried_over": CARRIED, "p99 of 662": together},
        "needed_for_p99": [samples_needed(0.99, slower) for slower in (0, 1)],
        "seconds": round(time.monotonic() - began, 1),
        "passed": all(share >= WITHIN for share in exact.values())
        and all(share >= WITHIN - tolerance for share in found.values()),
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
