"""What the kernel tells of the machine during a round: everything that makes the times of a round doubtful."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmedge.profiling.machine.kernel_files import ROOT, Opened, bytes_of, control_groups, text_of
from mmedge.profiling.run import Host

_PRESSURE = re.compile(r"^some avg10=([\d.]+)(?:.* total=(\d+))?", re.MULTILINE)
_SWAP = re.compile(r"^pswp(?:in|out) (\d+)$", re.MULTILINE)
_MHZ = re.compile(r"^cpu MHz\s*: ([\d.]+)$", re.MULTILINE)
_THROTTLED = re.compile(r"^nr_throttled (\d+)$", re.MULTILINE)
_SWITCHES = b"\nnonvoluntary_ctxt_switches:"

_HEAT_COUNTERS = (
    "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count",  # Intel
    "sys/class/hwmon/hwmon*/oc*_event_cnt",  # Jetson: over-current and heat events of the soctherm hardware
)
_COOLING_BY_SLOWING = re.compile(r"throttle|cpufreq|devfreq|powerclamp|Processor|hot-surface")
"""Types of cooling devices that slow down what makes the heat; the others are fans."""
_PROCESSOR_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
"""Chips of hwmon, for machines that show no thermal zone."""
_MOST = 64
"""Files of a kind that are read, spread evenly over them: large machines have hundreds of cores."""
_RASPBERRY_PI = "sys/devices/platform/soc*/*firmware/get_throttled"
_NOW = 0xF
"""Bits of that file: the voltage or the heat limits the clock now. The same four, 16 higher, since the machine started.
Source: `vcgencmd get_throttled` in the documentation of Raspberry Pi."""


@dataclass(frozen=True)
class _Look:
    """Counters at one moment; empty or None where the kernel does not tell."""

    moment_ns: int
    waits: dict[str, tuple[float, int | None]]
    """By what was waited for: percentage of the last 10 s, and microseconds since the machine started."""
    times: tuple[int, ...]
    """Of all processors, in jiffies, as in the first line of ``/proc/stat``."""
    heat: tuple[float, ...]
    quota: int | None
    """Periods in which a control group around this process had used up its time."""
    since_boot: int
    swaps: int | None
    """Pages."""
    faults: dict[int, int]
    switches: dict[int, dict[int, int]]
    """By process and thread."""


class Health:
    """Reads the state of the machine once a round, and compares it with the last time.

    A process that is new in a round is compared from the next one on: what it did while it opened a bundle is not the
    round's. Reading costs less than a millisecond on a small machine: files are kept open.
    """

    def __init__(
        self, root: Path = ROOT, pids: Iterable[int] = (), clock: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self._root, self._clock = root, clock
        self._stat, self._vmstat = Opened(root / "proc/stat"), Opened(root / "proc/vmstat")
        self._pressure = {name: Opened(root / "proc/pressure" / name) for name in ("cpu", "memory", "io")}
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._clocks = _opened(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq")
        self._cpuinfo = Opened(root / "proc/cpuinfo")
        self._zones = _opened(root, "sys/class/thermal/thermal_zone*/temp") or _processor_sensors(root)
        self._heat = [file for pattern in _HEAT_COUNTERS for file in _opened(root, pattern)]
        self._cooling = _slowing_devices(root)
        self._firmware = _opened(root, _RASPBERRY_PI)
        self._quota = [Opened(folder / "cpu.stat") for _, folder in control_groups("cpu", root)]
        self._before = self._look(pids)

    def begin(self, pids: Iterable[int] = ()) -> None:
        """Compare the next round with now: what lies before, such as opening bundles, is in no round."""
        self._before = self._look(pids)

    def round(self, index: int, now_ns: int, pids: Iterable[int] = ()) -> Host:
        """The machine since the last call; ``now_ns`` is the time since the run began, ``pids`` are the workers."""
        before, now = self._before, self._look(pids)
        self._before = now
        faults = [count - before.faults[pid] for pid, count in now.faults.items() if pid in before.faults]
        switches = [_more(before.switches[pid], new) for pid, new in now.switches.items() if pid in before.switches]
        return Host(
            round=index,
            t_ns=now_ns,
            steal=_stolen(before.times, now.times),
            pressure=_pressure(before, now),
            throttled=self._throttled(before, now),
            celsius=self._celsius(),
            mhz=self._mhz(),
            swapped=None if now.swaps is None or before.swaps is None else (now.swaps - before.swaps) * self._page,
            major_faults=sum(faults) if faults else None,
            switches=sum(switches) if switches else None,
        )

    def _look(self, pids: Iterable[int]) -> _Look:
        quota = [int(count) for file in self._quota for count in _THROTTLED.findall(file.text())]
        swaps = [int(pages) for pages in _SWAP.findall(self._vmstat.text())]
        pids = tuple(pids)
        return _Look(
            moment_ns=self._clock(),
            waits=self._waits(),
            times=tuple(int(word) for word in self._stat.text().partition("\n")[0].split()[1:9]),
            heat=tuple(file.number() or 0.0 for file in self._heat),
            quota=sum(quota) if quota else None,
            since_boot=self._limits() >> 16,
            swaps=sum(swaps) if swaps else None,
            faults={pid: count for pid in pids if (count := _major_faults(self._root, pid)) is not None},
            switches={pid: found for pid in pids if (found := _switches(self._root, pid))},
        )

    def _waits(self) -> dict[str, tuple[float, int | None]]:
        found = {name: _PRESSURE.search(file.text()) for name, file in self._pressure.items()}
        return {name: (float(told[1]), int(told[2]) if told[2] else None) for name, told in found.items() if told}

    def _throttled(self, before: _Look, now: _Look) -> bool | None:
        """Null where nothing tells of heat, unless a quota throttled: without one nobody knows that heat did not."""
        states = [state for file in self._cooling if (state := file.number()) is not None]
        if now.quota is not None and before.quota is not None and now.quota > before.quota:
            return True
        if any(state > 0 for state in states) or self._limits() & _NOW or now.since_boot & ~before.since_boot:
            return True
        if any(new > old for old, new in zip(before.heat, now.heat, strict=True)):
            return True
        return False if states or now.heat or self._firmware else None

    def _limits(self) -> int:
        """What the firmware of a Raspberry Pi says."""
        found = [int(text, 16) for file in self._firmware if re.fullmatch(r"(0x)?[0-9a-f]+", text := file.text())]
        return max(found, default=0)

    def _celsius(self) -> float | None:
        found = [value for file in self._zones if (value := file.number()) is not None and -40_000 < value < 200_000]
        return max(found) / 1e3 if found else None

    def _mhz(self) -> float | None:
        clocks = [value / 1e3 for file in self._clocks if (value := file.number()) is not None]
        clocks = clocks or [float(value) for value in _MHZ.findall(self._cpuinfo.text())]
        return round(sum(clocks) / len(clocks), 1) if clocks else None


def _opened(root: Path, pattern: str) -> list[Opened]:
    found = sorted(root.glob(pattern))
    return [Opened(path) for path in found[:: -(-len(found) // _MOST) or 1]]


def _processor_sensors(root: Path) -> list[Opened]:
    chips = [path for path in (root / "sys/class/hwmon").glob("hwmon*") if text_of(path / "name") in _PROCESSOR_SENSORS]
    return [Opened(path) for chip in sorted(chips) for path in sorted(chip.glob("temp*_input"))]


def _slowing_devices(root: Path) -> list[Opened]:
    found = sorted((root / "sys/class/thermal").glob("cooling_device*"))
    return [Opened(device / "cur_state") for device in found if _COOLING_BY_SLOWING.search(text_of(device / "type"))]


def _stolen(before: tuple[int, ...], now: tuple[int, ...]) -> float | None:
    """The eighth number is what other virtual machines took; the first eight are all time that passed."""
    if len(before) < 8 or len(now) < 8 or sum(now) <= sum(before):
        return None
    return max(0, now[7] - before[7]) / (sum(now) - sum(before))


def _pressure(before: _Look, now: _Look) -> dict[str, float]:
    """Percentage of the time in between; what the averages say lies partly before it."""
    found, passed_us = {}, (now.moment_ns - before.moment_ns) / 1e3
    for name, (lately, total) in now.waits.items():
        _, earlier = before.waits.get(name, (0.0, None))
        if total is None or earlier is None or passed_us <= 0:
            found[name] = lately
        else:
            found[name] = min(100.0, max(0, total - earlier) / passed_us * 100)
    return found


def _major_faults(root: Path, pid: int) -> int | None:
    """Of all threads of a process."""
    fields = bytes_of(f"{root}/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[9]) if len(fields) > 9 else None


def _switches(root: Path, pid: int) -> dict[int, int]:
    """By thread: the kernel adds them up for nobody."""
    folder = f"{root}/proc/{pid}/task"
    try:
        threads = os.listdir(folder)
    except FileNotFoundError:
        return {}
    told = {thread: bytes_of(f"{folder}/{thread}/status").partition(_SWITCHES)[2] for thread in threads}
    counts = {thread: rest.partition(b"\n")[0] for thread, rest in told.items()}
    return {int(thread): int(count) for thread, count in counts.items() if count.strip().isdigit()}


def _more(before: Mapping[int, int], now: Mapping[int, int]) -> int:
    """By the threads that are still there; new ones began at nothing."""
    return sum(count - before.get(thread, 0) for thread, count in now.items())
