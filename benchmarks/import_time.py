"""How much longer than a bare interpreter `import mmedge` and `mmedge --help` take, beside `import numpy`.

The commands run interleaved, so that whatever else the machine does meets all of them; the processor time tells how
much of a long wall time was waiting for others. Writes
benchmarks/results/import_time.json:  python benchmarks/import_time.py [--rounds 40]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

RESULT = Path(__file__).parent / "results" / "import_time.json"

COMMANDS = {
    "bare interpreter": ("-c", "pass"),
    "import numpy": ("-c", "import numpy"),
    "import mmedge": ("-c", "import mmedge"),
    "mmedge --help": ("-m", "mmedge", "--help"),
    "mmedge targets": ("-m", "mmedge", "targets"),
}
BUDGET_MS = {"import mmedge": 60.0, "mmedge --help": 300.0}


class Times(NamedTuple):
    """Milliseconds of one process: wall time, and processor time of all its threads."""

    wall: float
    cpu: float


def measure(arguments: tuple[str, ...]) -> Times:
    """Start the process and wait for its end."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    ended, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Times((ended - started) * 1e3, used * 1e3)


def spread(values: list[float]) -> dict[str, float]:
    """Median, and the range that holds the middle 80 %."""
    tenths = statistics.quantiles(values, n=10)
    return {"median": round(statistics.median(values), 2), "p10": round(tenths[0], 2), "p90": round(tenths[-1], 2)}


def run_rounds(rounds: int) -> dict[str, list[Times]]:
    """Times by command, one a round; each round has its own order, and one before them warms up."""
    times: dict[str, list[Times]] = {name: [] for name in COMMANDS}
    order = list(COMMANDS)
    shuffle = random.Random(0).shuffle
    for number in range(rounds + 1):
        shuffle(order)
        for name in order:
            taken = measure(COMMANDS[name])
            if number:
                times[name].append(taken)
    return times


def summarise(samples: dict[str, list[Times]]) -> dict[str, dict[str, object]]:
    """Extra time over the bare interpreter of the same round, and its ratio to what numpy took extra in that round."""
    summary: dict[str, dict[str, object]] = {name: {} for name in samples}
    for kind in Times._fields:
        times = {name: [getattr(sample, kind) for sample in taken] for name, taken in samples.items()}
        extra = {
            name: [value - floor for value, floor in zip(values, times["bare interpreter"], strict=True)]
            for name, values in times.items()
        }
        for name in samples:
            summary[name][f"{kind}_ms"] = spread(times[name])
            if name != "bare interpreter":
                ratios = [value / other for value, other in zip(extra[name], extra["import numpy"], strict=True)]
                summary[name][f"{kind}_extra_ms"] = spread(extra[name])
                summary[name][f"{kind}_extra_over_numpy"] = spread(ratios)
            if name in BUDGET_MS:
                summary[name]["budget_ms"] = BUDGET_MS[name]
                summary[name][f"{kind}_within_budget"] = statistics.median(extra[name]) <= BUDGET_MS[name]
    return summary


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    load = os.getloadavg()[0]
    samples = run_rounds(rounds)
    packages = {name: version(name) for name in ("mmedge", "cyclopts", "numpy")}
    result = {
        "what": "wall time of whole processes, interleaved; extra is over the bare interpreter of the same round",
        "machine": f"{platform.machine()}, {platform.system()}",
        "versions": {"python": platform.python_version(), **packages},
        "rounds": rounds,
        "processes_running": {"cores": os.cpu_count(), "before": round(load, 1), "after": round(os.getloadavg()[0], 1)},
        "results": summarise(samples),
        "samples_wall_cpu_ms": {
            name: [[round(value, 2) for value in sample] for sample in taken] for name, taken in samples.items()
        },
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["results"], indent=1))


if __name__ == "__main__":
    main()
