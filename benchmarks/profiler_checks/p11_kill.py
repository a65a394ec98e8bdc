"""P11: a run that is killed at any time leaves a whole file, marked incomplete, and no process behind.

python benchmarks/profiler_checks/p11_kill.py
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mmedge.errors import InputError
from mmedge.profiling.keep import read_run

COMMAND = (sys.executable, "-m", "mmedge", "profile", "--aa", "--budget", "300s", "--output")
"""A fixed computation against itself: starts in a second, and would go on for minutes."""
LONGEST_S = 12.0
"""After the first file was there: meanwhile it weighs, warms up, measures in rounds and saves every few seconds."""
GIVE_UP_S = 60.0


def killed_after(seconds: float) -> dict[str, object]:
    """What a run leaves that is killed so long after it wrote its first file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.json")
        process = subprocess.Popen([*COMMAND, str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(file, process)
            time.sleep(seconds)
            children = _children(process.pid)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        found = {"after_s": round(seconds, 2), "ended": process.returncode, **_left(file)}
        return {**found, "processes_left": _alive(children)}


def _left(file: Path) -> dict[str, object]:
    try:
        run = read_run(file)
    except InputError as error:
        return {"valid": False, "why": error.message}
    return {"valid": True, "complete": run.complete, "samples": len(run.samples), "rounds": len(run.host)}


def _wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + GIVE_UP_S
    while not file.exists():
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"the profiler wrote nothing and ended with {process.poll()}")
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    """Processes whose parent is ``pid``: the workers."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        if parent == pid:
            found.append(int(stat.parent.name))
    return found


def _alive(pids: list[int]) -> int:
    """How many of them have not ended some seconds later."""
    until = time.monotonic() + 5
    while (alive := [pid for pid in pids if os.path.exists(f"/proc/{pid}")]) and time.monotonic() < until:
        time.sleep(0.05)
    return len(alive)


def right(left: dict[str, object]) -> bool:
    return left["valid"] is True and left["complete"] is False and left["processes_left"] == 0


def check(quick: bool) -> dict[str, object]:
    """Twenty kills at random times; ``quick`` four."""
    chance = random.Random(11)
    found = [killed_after(chance.uniform(0, LONGEST_S)) for _ in range(4 if quick else 20)]
    return {
        "check": "P11",
        "bound": "every file is valid and marked incomplete, and no worker is left",
        "kills": len(found),
        "right": sum(map(right, found)),
        "with_rounds": sum(bool(each.get("rounds")) for each in found),
        "measured": found,
        "passed": all(map(right, found)),
    }


def main() -> None:
    print(json.dumps(found := check("--quick" in sys.argv), indent=1))
    raise SystemExit(not found["passed"])


if __name__ == "__main__":
    main()
