"""Workers that are not asked use no processor time: they are stopped, whatever threads their engines keep spinning.

python benchmarks/profiler_checks/p09_idle.py [--quick]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from mmedge.profiling.machine.memory import tree_of
from mmedge.profiling.messages import Load
from mmedge.profiling.workers import running

COMMAND = (sys.executable, str(Path(__file__).with_name("spinning.py")))
WORKERS = 3


def jiffies(pids: list[int]) -> int:
    """Of user and system time, of all threads of the processes."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def check(quick: bool) -> dict[str, object]:
    """Three workers, each with two threads and a child that never rest, awake and then stopped for as long."""
    seconds = 0.3 if quick else 10.0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        (bundle := Path(folder, "bundle")).touch()
        workers = [stack.enter_context(running(f"spinning {index}", COMMAND)) for index in range(WORKERS)]
        for worker in workers:
            worker.wait_until_started()
            worker.load(Load(str(bundle), None, 0))
            worker.pause()
        pids = [pid for worker in workers for pid in tree_of(worker.pid)]
        time.sleep(0.1)
        before = jiffies(pids)
        time.sleep(seconds)
        stopped = jiffies(pids) - before
        before = jiffies(pids)
        with workers[0].awake():
            time.sleep(seconds)
        awake = jiffies(pids) - before
    return {
        "check": "P9",
        "bound": "0 jiffies while stopped; more while one is awake",
        "workers": WORKERS,
        "processes": len(pids),
        "seconds": seconds,
        "jiffies_stopped": stopped,
        "jiffies_one_awake": awake,
        "passed": stopped == 0 and awake > 0 and len(pids) == 2 * WORKERS,
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
