import os
from pathlib import Path

import pytest

from mmedge.profiling.meters import memory_of, state_of_machine

MIB = 1 << 20

ROLLUP = """55f8b0a4a000-7ffd9a3f2000 ---p 00000000 00:00 0    [rollup]
Rss:               90000 kB
Pss:               60000 kB
Pss_Dirty:         41000 kB
Pss_Anon:          40000 kB
Pss_File:          20000 kB
Anonymous:         41000 kB
"""
STATUS = "Name:\tpython\nVmPeak:\t  800000 kB\nVmHWM:\t  120000 kB\nVmRSS:\t   90000 kB\n"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root folder like a kernel's, of a quiet desktop computer."""
    files = {
        "proc/meminfo": "MemTotal: 8000000 kB\nSwapTotal:  2048000 kB\nSwapFree:  2048000 kB\nHugePages_Total:  0\n",
        "proc/loadavg": "1.50 2.00 3.00 2/150 4711\n",
        "proc/7/smaps_rollup": ROLLUP,
        "proc/7/status": STATUS,
    }
    for name, content in files.items():
        write(tmp_path, name, content)
    return tmp_path


def write(root: Path, name: str, content: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(content)


def test_memory_is_the_share_of_the_pages_and_the_highest_peak(machine):
    memory = memory_of(7, machine)
    assert (memory.pss, memory.anonymous, memory.peak) == (60000 * 1024, 40000 * 1024, 120000 * 1024)


def test_an_old_kernel_does_not_split_the_share(machine):
    write(machine, "proc/7/smaps_rollup", ROLLUP.replace("Pss_Anon:", "Other:"))
    assert memory_of(7, machine).anonymous == 41000 * 1024


def test_memory_that_is_held_is_seen_and_memory_that_was_given_back_stays_in_the_peak():
    before = memory_of()
    block = bytearray(os.urandom(64)) * MIB
    held = memory_of()
    del block
    after = memory_of()
    assert abs(held.pss - before.pss - 64 * MIB) < 2 * MIB
    assert after.pss < held.pss - 60 * MIB and after.peak >= held.pss


def test_a_quiet_machine_gives_no_reason_for_doubt(machine):
    state = state_of_machine(machine)
    assert (state.load, state.governors, state.on_battery, state.swap_mb) == (1.5, (), False, 0.0)


def test_swap_in_use_is_seen(machine):
    write(machine, "proc/meminfo", "SwapTotal:  2048000 kB\nSwapFree:  1024000 kB\n")
    assert state_of_machine(machine).swap_mb == 1000


def test_the_governors_of_all_processors_that_may_be_used_are_named(machine):
    for cpu in os.sched_getaffinity(0):
        write(machine, f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "powersave\n")
    assert state_of_machine(machine).governors == ("powersave",)


@pytest.mark.parametrize(("status", "empties"), [("Discharging", True), ("Full", False), ("Charging", False)])
def test_a_battery_that_empties_is_seen(status, empties, machine):
    write(machine, "sys/class/power_supply/BAT0/status", f"{status}\n")
    write(machine, "sys/class/power_supply/AC/online", "0\n")
    assert state_of_machine(machine).on_battery is empties


def test_this_machine_can_be_read():
    assert state_of_machine().load >= 0
