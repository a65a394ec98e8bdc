"""Energy of what runs, from what a machine measures itself: INA3221 and its relatives on boards, RAPL in processors.

A Jetson measures its supply rails with chips that the kernel shows in one of three ways: voltage and current (hwmon,
JetPack 5 and later), power alone (hwmon, the INA238 of Thor), or power by rail number (iio, JetPack 4). Sources: the
documentation of the Linux hwmon drivers `ina3221` and `ina238`; of the iio driver the trees that jetson-stats and
energymon read. Which rails there are, and whether one of them carries all the others, differs from board to board.

Processors of Intel and AMD count the energy of their parts; the kernel shows the counters as power zones (powercap),
for root alone since Linux 5.10. Source: the documentation of the Linux power capping framework.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from msgspec.structs import replace

from mmedge.profiling.machine.kernel_files import ROOT, number_of, text_of
from mmedge.profiling.run import Energy

_CHIPS = "sys/bus/i2c/drivers/ina*/*-*"
_ZONES = "sys/class/powercap/intel-rapl:*"
"""AMD's too. Others, such as ``intel-rapl-mmio``, show the same counters once more."""

WHOLE = ("VDD_IN", "VIN", "POM_5V_IN", "psys")
"""Rails that carry all the others: the input of an Orin Nano or NX module (carrier board not included), of a Thor
developer kit, of a Nano; the zone of a whole laptop. AGX modules have no such rail; which of theirs feeds which is not
documented, so that they are never added up; nor are the packages of processors."""

INTERVAL_S = 0.02
"""Between readings of power; one takes about a millisecond, most of it waiting for the bus."""
_COUNTER_INTERVAL_S = 1.0
"""Between readings of counters, which pass their end after minutes."""
_COUNTED_S = 0.001
"""Between additions of the processor to its counters."""
FEWEST = 5
"""Readings of power, or additions to a counter, that fit into a stretch of time of which energy is told."""
IDLE_S = 10.0

Samples: TypeAlias = Sequence[tuple[float, float]]
"""When (seconds), and what was read."""


@dataclass(frozen=True)
class Rail:
    """A supply line whose power is measured."""

    name: str
    files: tuple[Path, ...]
    """Their numbers multiplied with each other and with ``scale`` are milliwatts."""
    scale: float

    def read(self) -> float | None:
        """Milliwatts now; None when the chip does not answer."""
        try:
            return math.prod(float(file.read_text()) for file in self.files) * self.scale
        except (OSError, ValueError):
            return None

    def energy_mj(self, samples: Samples) -> float | None:
        """The area under readings of power: milliwatts times seconds."""
        if len(samples) < 2:
            return None
        seconds, milliwatts = np.array(samples).T
        return float(np.sum(np.diff(seconds) * (milliwatts[1:] + milliwatts[:-1]) / 2))


@dataclass(frozen=True)
class Zone:
    """A part of a processor whose energy is counted."""

    name: str
    file: Path
    range_uj: float
    """After which the counter starts again."""

    def read(self) -> float | None:
        """Microjoules since some time; None where this user may not know."""
        return number_of(self.file)

    def energy_mj(self, samples: Samples) -> float | None:
        """What was added between readings; None where the counter stood still, as it does for a millisecond."""
        added = sum(np.diff([value for _, value in samples]) % self.range_uj)
        return float(added) / 1e3 if added else None


def rails(root: Path = ROOT) -> tuple[Rail, ...]:
    """Those that answer now, below ``root``; lines that are not connected are left out."""
    found = (rail for chip in sorted(root.glob(_CHIPS)) for rail in _rails_of(chip))
    return tuple(rail for rail in found if rail.name != "NC" and rail.read() is not None)


def zones(root: Path = ROOT) -> tuple[Zone, ...]:
    """Those whose counters may be read; parts of a package are named after it."""
    found = []
    for folder in sorted(root.glob(_ZONES)):
        parent = text_of(folder.with_name(folder.name.rpartition(":")[0]) / "name")
        name, most = text_of(folder / "name"), number_of(folder / "max_energy_range_uj")
        if name and most and number_of(folder / "energy_uj") is not None:
            found.append(Zone(f"{parent}/{name}" if parent else name, folder / "energy_uj", most))
    return tuple(found)


class Meter:
    """Measures the energy of stretches of time."""

    def __init__(
        self, root: Path = ROOT, interval_s: float | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        on_board = rails(root)
        self._sources: tuple[Rail | Zone, ...] = on_board or zones(root)
        self._interval = interval_s or (INTERVAL_S if on_board else _COUNTER_INTERVAL_S)
        self._shortest_s = FEWEST * (INTERVAL_S if on_board else _COUNTED_S)
        self._clock = clock
        names = tuple(source.name for source in self._sources)
        self.energy = Energy(
            method=("INA3221" if on_board else "RAPL") if names else None,
            reason="" if names else _why_missing(root),
            whole=next((name for name in WHOLE if name in names), "" if on_board else _only_package(names)),
            rails=names,
        )
        """What can be measured, or why nothing can; idle power is not known yet."""

    def idle(self, seconds: float = IDLE_S) -> dict[str, float]:
        """Watts by rail while nobody does anything for so long; nothing, at once, where nothing can be measured."""
        if not self._sources:
            return {}
        with self.window() as window:
            time.sleep(seconds)
        return {name: round(energy / window.seconds / 1e3, 4) for name, energy in window.energy_mj.items()}

    def energy_with(self, *idle: dict[str, float]) -> Energy:
        """What can be measured, with the mean of what `idle` said before and after a run."""
        told = {name: [watts[name] for watts in idle if name in watts] for name in self.energy.rails}
        return replace(self.energy, idle_w={name: sum(each) / len(each) for name, each in told.items() if each})

    @contextmanager
    def window(self) -> Iterator[Window]:
        """A stretch of time; its energy is known when the block ends. Costs nothing where nothing can be measured."""
        window = Window(self._sources, self._shortest_s)
        if not self._sources:
            yield window
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._sample, args=(window, ended), name="power", daemon=True)
        self._read(window)
        thread.start()
        try:
            yield window
        finally:
            ended.set()
            thread.join()
            self._read(window)

    def _sample(self, window: Window, ended: threading.Event) -> None:
        while not ended.wait(self._interval):
            self._read(window)

    def _read(self, window: Window) -> None:
        for source in self._sources:
            if (value := source.read()) is not None:
                window.samples[source.name].append((self._clock(), value))


class Window:
    """Readings of a stretch of time, by rail."""

    def __init__(self, sources: Sequence[Rail | Zone], shortest_s: float) -> None:
        self.samples: dict[str, list[tuple[float, float]]] = {source.name: [] for source in sources}
        self._sources, self._shortest_s = sources, shortest_s

    @property
    def seconds(self) -> float:
        """Between the first reading and the last; 0 where nothing can be measured."""
        return max((told[-1][0] - told[0][0] for told in self.samples.values() if told), default=0.0)

    @property
    def energy_mj(self) -> dict[str, float]:
        """By rail; those that did not tell are left out. Nothing of less than a few readings (`FEWEST`): a sensor's
        would be mostly of what was before."""
        if self.seconds < self._shortest_s:
            return {}
        told = {source.name: source.energy_mj(self.samples[source.name]) for source in self._sources}
        return {name: round(energy, 4) for name, energy in told.items() if energy is not None}


def _rails_of(chip: Path) -> Iterator[Rail]:
    for folder in sorted(chip.glob("hwmon/hwmon*")):
        yield from _by_channel(folder)
        if (name := text_of(folder / "label")) and (power := folder / "power1_input").exists():
            yield Rail(name, (power,), 1e-3)
    for label in sorted(chip.glob("iio:device*/rail_name_*")):
        number = label.name.rpartition("_")[2]
        yield Rail(text_of(label), (label.with_name(f"in_power{number}_input"),), 1.0)


def _by_channel(folder: Path) -> Iterator[Rail]:
    """Channels with a voltage and a current; one that sums up shunt voltages has no current."""
    for label in sorted(folder.glob("in*_label")):
        channel = label.name.removeprefix("in").removesuffix("_label")
        volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
        if amperes.exists():
            yield Rail(text_of(label), (volts, amperes), 1e-3)


def _only_package(names: Sequence[str]) -> str:
    """The one package that all zones are parts of, unless the memory beside it is counted too."""
    own = [name for name in names if "/" not in name]
    return own[0] if len(own) == 1 and f"{own[0]}/dram" not in names else ""


def _why_missing(root: Path) -> str:
    if chips := sorted(root.glob(_CHIPS)):
        return f"the power monitor {chips[0].name} answers nothing: may this user read {chips[0]}?"
    if folders := sorted(root.glob(_ZONES)):
        files = folders[0].with_name("intel-rapl:*") / "energy_uj"
        return f"RAPL counts energy here, but only root may read it: sudo chmod a+r {files}"
    return "this machine has no power monitor that the kernel knows (INA3221, INA238 or RAPL)"
