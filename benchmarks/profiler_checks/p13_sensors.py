"""Where nothing measures energy, temperature or anything else, the run says null and why, and nowhere 0.

python benchmarks/profiler_checks/p13_sensors.py
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from mmedge.profiling.machine.health import Health
from mmedge.profiling.machine.memory import gpu_of
from mmedge.profiling.machine.power import Meter

NULL_WITHOUT_SENSORS = ("steal", "throttled", "celsius", "mhz", "swapped", "major_faults", "switches")


def without_sensors() -> dict[str, Any]:
    """A machine that tells nothing at all: an empty tree of files."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        meter = Meter(root)
        with meter.window() as window:
            time.sleep(0.01)
        return {
            "host": msgspec.to_builtins(Health(root).round(0, 1, [4711])),
            "energy": msgspec.to_builtins(meter.energy_with(meter.idle(), meter.idle())),
            "answer_mj": window.energy_mj,
            "gpu": gpu_of([4711], root),
        }


def this_machine() -> dict[str, Any]:
    """What is told here: a number, or null."""
    health = Health()
    time.sleep(0.05)
    return {
        "host": msgspec.to_builtins(health.round(0, 1)),
        "energy": msgspec.to_builtins(Meter().energy),
        "zones": len([*Path("/sys/class/thermal").glob("thermal_zone*")]),
    }


def check(quick: bool) -> dict[str, object]:
    """An empty machine, and this one."""
    empty, here = without_sensors(), this_machine()
    told = {
        "nothing is null": all(empty["host"][name] is None for name in NULL_WITHOUT_SENSORS),
        "no pressure": empty["host"]["pressure"] == {},
        "energy has a reason": empty["energy"]["method"] is None and bool(empty["energy"]["reason"]),
        "no energy of an answer": empty["answer_mj"] == {} and empty["energy"]["idle_w"] == {},
        "no memory of a GPU": empty["gpu"] is None,
        "energy here": (here["energy"]["method"] is None) == bool(here["energy"]["reason"]),
        "temperature here": bool(here["zones"]) or here["host"]["celsius"] != 0,
    }
    return {
        "check": "P13",
        "bound": "null and a reason, never 0",
        "measured": told,
        "here": {"energy": here["energy"], "celsius": here["host"]["celsius"], "throttled": here["host"]["throttled"]},
        "passed": all(told.values()),
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
