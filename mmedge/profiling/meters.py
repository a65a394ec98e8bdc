"""What the kernel tells: memory of a process, and the state of this machine that makes timings doubtful."""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from mmedge.profiling.messages import Memory

_ROOT = Path("/")


class State(Struct, frozen=True):
    """What a machine is doing, at one moment."""

    load: float
    """Processes that ran or waited to, averaged over the last minute."""
    governors: tuple[str, ...]
    """How the kernel chooses clock rates; empty where it does not tell."""
    on_battery: bool
    swap_mb: float
    """Swap in use, MiB."""


def memory_of(process: int | str = "self", root: Path = _ROOT) -> Memory:
    """Memory of a process now, and at most so far."""
    folder = root / "proc" / str(process)
    rollup = _kilobytes((folder / "smaps_rollup").read_text())
    status = _kilobytes((folder / "status").read_text())
    return Memory(
        pss=rollup["Pss"] * 1024,
        anonymous=rollup.get("Pss_Anon", rollup["Anonymous"]) * 1024,  # Pss_Anon since Linux 5.4
        peak=status["VmHWM"] * 1024,
    )


def state_of_machine(root: Path = _ROOT) -> State:
    """Read it; what the kernel does not tell counts as nothing to worry about."""
    memory = _kilobytes((root / "proc/meminfo").read_text())
    return State(
        load=float((root / "proc/loadavg").read_text().split()[0]),
        governors=_governors(root),
        on_battery=_on_battery(root),
        swap_mb=(memory["SwapTotal"] - memory["SwapFree"]) / 1024,
    )


def _governors(root: Path) -> tuple[str, ...]:
    files = (root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor" for cpu in os.sched_getaffinity(0))
    return tuple(sorted({file.read_text().strip() for file in files if file.is_file()}))


def _on_battery(root: Path) -> bool:
    """A battery that empties; a laptop on mains reports it as full or charging."""
    files = (root / "sys/class/power_supply").glob("*/status")
    return any(file.read_text().strip() == "Discharging" for file in files)


def _kilobytes(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
