"""P3: intervals at 95 % hold the true ratio in 93 to 97 of 100 cases, with five to ten processes.

Simulated rounds: noise that is carried over from round to round (AR(1)), processes that differ, now and then a wild
round. Beside the interval in use stands what the percentile bootstrap of two levels (process, round) of the median of
medians would cover, and what stopping as soon as the interval is narrow enough costs.
"""

from __future__ import annotations

import json
import math
import sys
import time
from itertools import product

import numpy as np

from mmedge.profiling.numbers.ratios import estimate

LOW, HIGH = 0.93, 0.97
PROCESSES, CARRIED, BETWEEN, WILD = (5, 7, 10), (0.0, 0.5, 0.9), (0.0, 0.3, 1.0), (False, True)
"""Groups of processes; correlation of neighbouring rounds; how processes differ, by how rounds do; outliers."""
ROUNDS = 12
PRECISION = 0.02


def rounds_of(
    chance: np.random.Generator, processes: int, carried: float, between: float, wild: bool, rounds: int = ROUNDS
) -> np.ndarray:
    """Log-ratios around 0, ``[process, round]``, with a standard deviation of about 1 within processes."""
    found = chance.standard_normal((processes, rounds))
    for at in range(1, rounds):
        found[:, at] = carried * found[:, at - 1] + math.sqrt(1 - carried**2) * found[:, at]
    if wild:
        sign = chance.choice((-1, 1), found.shape)
        found += (chance.random(found.shape) < 0.05) * sign * chance.exponential(10, found.shape)
    return found + between * chance.standard_normal((processes, 1))


def covers(logs: np.ndarray) -> bool:
    """Whether the interval in use holds 0."""
    found = estimate(logs.ravel(), np.repeat(np.arange(len(logs)), logs.shape[1]))
    assert found
    return found.low <= 0 <= found.high


def bootstrap_covers(chance: np.random.Generator, logs: np.ndarray, resamples: int = 1_000) -> bool:
    """Whether that of the percentile bootstrap of processes, and of rounds in them, does."""
    processes, rounds = logs.shape
    drawn = chance.integers(0, processes, (resamples, processes, 1))
    inside = chance.integers(0, rounds, (resamples, processes, rounds))
    low, high = np.percentile(np.median(np.median(logs[drawn, inside], axis=2), axis=1), (2.5, 97.5))
    return bool(low <= 0 <= high)


def stopped_covers(chance: np.random.Generator, spread: float, most: int = 14) -> bool:
    """Whether the interval holds 0 at which the profiler stops, where processes have a ``spread``."""
    logs = spread * chance.standard_normal((most, 1))
    for count in range(5, most + 1):
        found = estimate(logs[:count].ravel(), np.arange(count))
        assert found
        if math.expm1(found.half_width) <= PRECISION:
            break
    return found.low <= 0 <= found.high


def check(quick: bool) -> dict[str, object]:
    """2,000 cases of each of 54 kinds (``quick`` 300 of 8), 200 of each for the bootstrap."""
    began, chance, cases = time.monotonic(), np.random.default_rng(3), 300 if quick else 2_000
    kinds = list(product(PROCESSES, CARRIED, BETWEEN, WILD))[:: 7 if quick else 1]
    found = {kind: float(np.mean([covers(rounds_of(chance, *kind)) for _ in range(cases)])) for kind in kinds}
    few = {
        kind: float(np.mean([bootstrap_covers(chance, rounds_of(chance, *kind)) for _ in range(50 if quick else 200)]))
        for kind in kinds[:: 1 if quick else 3]
    }
    stopped = {
        spread: float(np.mean([stopped_covers(chance, spread) for _ in range(cases)]))
        for spread in (0.005, 0.01, 0.02, 0.03)
    }
    tolerance = 3 * math.sqrt(0.95 * 0.05 / cases) if quick else 0.0
    lowest, highest = min(found.values()), max(found.values())
    return {
        "check": "P3",
        "bound": "93 to 97 % of 2,000",
        "counts": f"{cases} of each of {len(kinds)} kinds (processes, carried over, between processes, wild rounds)",
        "lowest": lowest,
        "highest": highest,
        "mean": float(np.mean([*found.values()])),
        "worst": {
            ", ".join(map(str, kind)): found[kind] for kind in sorted(found, key=lambda k: abs(found[k] - 0.95))[-3:]
        },
        "percentile_bootstrap": {"lowest": min(few.values()), "highest": max(few.values()), "kinds": len(few)},
        "stopped_when_precise": {f"processes differ by {spread:.1%}": share for spread, share in stopped.items()},
        "seconds": round(time.monotonic() - began, 1),
        "passed": LOW - tolerance <= lowest and highest <= HIGH + tolerance,
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
