"""What this process may use of the machine: fewer cores and less memory than it has, inside a container."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int:
    """Physical cores that this process may run on, and no more than its control groups' quotas pay for.

    The second thread of a core shares its arithmetic units: engines gain nothing from it. ``root`` is where ``proc``
    and ``sys`` are.
    """
    cores = {_siblings(root, cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min([len(cores), *map(math.ceil, _quotas(root))]))


def usable_memory(root: Path = _ROOT) -> int:
    """Bytes of memory of the machine, or of a control group around this process that may have less."""
    kilobytes = _read(root / "proc/meminfo").partition("MemTotal:")[2].split()[0]
    limits = _limits(root, "memory", "memory.max", "memory.limit_in_bytes")
    return min([int(kilobytes) * 1024, *(int(limit) for limit in limits if limit.isdecimal())])


def free_memory(root: Path = _ROOT) -> int:
    """Bytes that programs could take now without others losing theirs."""
    return int(_read(root / "proc/meminfo").partition("MemAvailable:")[2].split()[0]) * 1024


def _siblings(root: Path, cpu: int) -> str:
    return _read(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)


def _quotas(root: Path) -> Iterator[float]:
    """CPUs' worth of time that each control group around this process may spend, where there is a limit."""
    version_1 = (_limits(root, "cpu", "cpu.cfs_quota_us"), _limits(root, "cpu", "cpu.cfs_period_us"))
    version_2 = (limit.split() for limit in _limits(root, "cpu", "cpu.max"))
    for quota, period in (*zip(*version_1, strict=False), *version_2):
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)


def _limits(root: Path, controller: str, *names: str) -> Iterator[str]:
    """Content of the files ``names`` in the control group of this process and in those around it."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount, inside = root / "sys/fs/cgroup" / (controller if controllers else ""), PurePosixPath(path.lstrip("/"))
        for folder in (inside, *inside.parents):
            yield from filter(None, (_read(mount / folder / name) for name in names))


def _read(path: Path) -> str:
    """Empty where the kernel does not tell."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
