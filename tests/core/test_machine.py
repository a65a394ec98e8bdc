import os
from pathlib import Path

import pytest

from mmedge.core.machine import free_memory, usable_cores, usable_memory

GIB = 1 << 30


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A machine of 8 processors, two to a core, and 16 GiB."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    put(tmp_path, "proc/meminfo", f"MemTotal:       {16 * GIB // 1024} kB\nMemFree: 1 kB\n")
    for cpu in range(8):
        put(tmp_path, f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    return tmp_path


def put(root: Path, name: str, content: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content)


def test_without_limits_all_cores_and_all_memory_count(root):
    assert (usable_cores(root), usable_memory(root)) == (4, 16 * GIB)


def test_free_memory_is_what_the_kernel_calls_available(root):
    put(root, "proc/meminfo", "MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable:    4096 kB\n")
    assert free_memory(root) == 4 << 20


def test_only_processors_of_the_affinity_count(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 4, 1})
    assert usable_cores(root) == 2


@pytest.mark.parametrize(("limit", "cores"), [("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1)])
def test_a_control_group_limits_cores(limit, cores, root):
    put(root, "proc/self/cgroup", "0::/box/task\n")
    put(root, "sys/fs/cgroup/box/cpu.max", limit)
    assert usable_cores(root) == cores


def test_the_tightest_control_group_limits_memory(root):
    put(root, "proc/self/cgroup", "0::/box/task\n")
    put(root, "sys/fs/cgroup/box/task/memory.max", "max\n")
    put(root, "sys/fs/cgroup/box/memory.max", f"{3 * GIB}\n")
    put(root, "sys/fs/cgroup/memory.max", f"{5 * GIB}\n")
    assert usable_memory(root) == 3 * GIB


def test_control_groups_of_version_1_limit_too(root):
    put(root, "proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n")
    put(root, "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "300000\n")
    put(root, "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2 * GIB}\n")
    assert (usable_cores(root), usable_memory(root)) == (3, 2 * GIB)


def test_this_machine_has_cores_and_memory():
    assert usable_cores() >= 1 and usable_memory() > 1 << 28
