"""Known allocations are seen by the profiler's weighing: by PSS within 2 % or 2 MiB, by VmHWM even for a millisecond.

python benchmarks/profiler_checks/p06_memory.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from mmedge.profiling.machine.memory import weigh
from mmedge.profiling.messages import Ask, Load
from mmedge.profiling.run import Memory
from mmedge.profiling.workers import running

MIB = 1 << 20
COMMAND = (sys.executable, str(Path(__file__).with_name("known_memory.py")))
SHARE, LEAST = 0.02, 2 * MIB
"""How far a peak may be off: a share of what was taken, or this."""
STAGES = ("anon", "file", "shared", "freed", "spike")
SEEN_BY = {
    "anon": ("pss_anon", "pss", "hwm"),
    "file": ("pss_file", "pss", "hwm"),
    "shared": ("pss_anon", "pss", "hwm"),
    "freed": ("hwm",),
    "spike": ("hwm",),
}
"""Those whose peak must be right. The others may look at a bad moment."""


def weighed(size: int, at_load: int = 0) -> dict[str, Memory]:
    """A worker that takes ``size`` bytes in every way, one after another: rows by stage."""
    plan = [step for kind in STAGES for step in (["before " + kind, "nothing", 0], [kind, kind, size])]
    with tempfile.TemporaryDirectory() as folder:
        (bundle := Path(folder, "bundle")).write_text(str(at_load))
        with running("known memory", COMMAND) as worker:
            rows = weigh(worker, 0, Load(str(bundle), None, 0), [Ask("caption", str(bundle), json.dumps(plan))])
    return {row.stage: row for row in rows}


def errors_of(rows: dict[str, Memory], size: int) -> list[dict[str, object]]:
    """How far each peak is from what was taken above what there was just before."""
    found = []
    for kind in STAGES:
        for field in SEEN_BY[kind]:
            before = rows["before " + kind]
            taken = getattr(rows[kind], field) - getattr(before, field)
            bound = max(SHARE * size, LEAST) + (libraries(before) if field == "pss" else 0)
            found.append(
                {
                    "kind": kind,
                    "field": field,
                    "mib": size // MIB,
                    "off_mib": round((taken - size) / MIB, 3),
                    "bound_mib": round(bound / MIB, 3),
                    "passed": abs(taken - size) <= bound,
                }
            )
    return found


def libraries(row: Memory) -> int:
    """Resident pages of files, in full: what the sum of both parts of PSS may change by with other processes that come
    to share them, or end."""
    assert row.hwm is not None and row.pss_anon is not None
    return max(0, row.hwm - row.pss_anon)


def check(quick: bool) -> dict[str, object]:
    """Sizes from 64 MiB to 1 GiB; ``quick`` only the smallest."""
    found = []
    for mib in (64,) if quick else (64, 256, 1024):
        rows = weighed(mib * MIB, at_load=mib * MIB)
        found += errors_of(rows, mib * MIB)
        load = rows["load"].hwm - rows["before anon"].hwm
        found.append(
            {
                "kind": "load",
                "field": "hwm",
                "mib": mib,
                "off_mib": round(load / MIB - mib, 3),
                "bound_mib": round(max(SHARE * mib, LEAST / MIB), 3),
                "passed": abs(load - mib * MIB) <= max(SHARE * mib * MIB, LEAST),
            }
        )
    worst = max(found, key=lambda each: abs(each["off_mib"]) / each["bound_mib"])
    return {
        "check": "P6",
        "bound": "2 % or 2 MiB; of the sum of both parts of PSS, what its libraries have besides: others share them",
        "measured": found,
        "worst": worst,
        "passed": all(each["passed"] for each in found),
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
