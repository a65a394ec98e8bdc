"""Energy of what runs, from the power monitors of a board: INA3221 and its relatives, read through sysfs.

A Jetson measures its supply rails with chips that the kernel shows in one of three ways: voltage and current (hwmon,
JetPack 5 and later), power alone (hwmon, the INA238 of Thor), or power by rail number (iio, JetPack 4). Sources: the
documentation of the Linux hwmon drivers `ina3221` and `ina238`; of the iio driver the trees that jetson-stats and
energymon read. Which rails there are, and whether one of them carries all the others, differs from board to board.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec import Struct

_ROOT = Path("/")
_CHIPS = "sys/bus/i2c/drivers/ina*/*-*"

WHOLE = ("VDD_IN", "VIN", "POM_5V_IN")
"""Rails that carry all the others: the input of an Orin Nano or NX module (carrier board not included), of a Thor
developer kit, of a Nano. AGX modules have no such rail; which of theirs feeds which is not documented, so that they are
never added up."""

INTERVAL_S = 0.02
"""Between readings; one takes about a millisecond, most of it waiting for the bus."""


@dataclass(frozen=True)
class Rail:
    """A supply line that is measured."""

    name: str
    files: tuple[Path, ...]
    """Their numbers multiplied with each other and with ``scale`` are milliwatts."""
    scale: float

    def milliwatts(self) -> float | None:
        """Now; None when the chip does not answer."""
        try:
            return math.prod(float(file.read_text()) for file in self.files) * self.scale
        except (OSError, ValueError):
            return None


class Power(Struct, frozen=True):
    """What can be measured on this machine."""

    rails: tuple[str, ...] = ()
    whole: str = ""
    """The rail among them that carries all the others; empty if none does."""
    missing: str = ""
    """Why nothing can be measured; empty if something can."""


def rails(root: Path = _ROOT) -> tuple[Rail, ...]:
    """Those that answer now, below ``root``; lines that are not connected are left out."""
    found = (rail for chip in sorted(root.glob(_CHIPS)) for rail in _rails_of(chip))
    return tuple(rail for rail in found if rail.name != "NC" and rail.milliwatts() is not None)


class Meter:
    """Measures the energy of stretches of time."""

    def __init__(
        self, root: Path = _ROOT, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._rails = rails(root)
        self._interval = interval_s
        self._clock = clock
        names = tuple(rail.name for rail in self._rails)
        whole = next((name for name in WHOLE if name in names), "")
        self.power = Power(names, whole, "" if names else _why_missing(root))

    @contextmanager
    def window(self) -> Iterator[Window]:
        """A stretch of time; its energy is known when the block ends. Costs nothing where nothing can be measured."""
        window = Window({rail.name: [] for rail in self._rails})
        if not self._rails:
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
        for rail in self._rails:
            if (power := rail.milliwatts()) is not None:
                window.samples[rail.name].append((self._clock(), power))


@dataclass
class Window:
    """Readings of a stretch of time by rail: when (seconds) and how much (mW)."""

    samples: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @property
    def energy_mj(self) -> dict[str, float]:
        """By rail; those that answered less than twice are left out."""
        return {name: round(energy_of(each), 4) for name, each in self.samples.items() if len(each) > 1}


def energy_of(samples: Sequence[tuple[float, float]]) -> float:
    """Area under readings of power: milliwatts times seconds are millijoules."""
    seconds, milliwatts = np.array(samples).T
    return float(np.sum(np.diff(seconds) * (milliwatts[1:] + milliwatts[:-1]) / 2))


def _rails_of(chip: Path) -> Iterator[Rail]:
    for folder in sorted(chip.glob("hwmon/hwmon*")):
        yield from _by_channel(folder)
        if (name := _text(folder / "label")) and (power := folder / "power1_input").exists():
            yield Rail(name, (power,), 1e-3)
    for label in sorted(chip.glob("iio:device*/rail_name_*")):
        number = label.name.rpartition("_")[2]
        yield Rail(_text(label), (label.with_name(f"in_power{number}_input"),), 1.0)


def _by_channel(folder: Path) -> Iterator[Rail]:
    """Channels with a voltage and a current; one that sums up shunt voltages has no current."""
    for label in sorted(folder.glob("in*_label")):
        channel = label.name.removeprefix("in").removesuffix("_label")
        volts, amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
        if amperes.exists():
            yield Rail(_text(label), (volts, amperes), 1e-3)


def _why_missing(root: Path) -> str:
    chips = sorted(root.glob(_CHIPS))
    if not chips:
        return "this machine has no power monitor that the kernel knows (INA3221 or INA238)"
    return f"the power monitor {chips[0].name} answers nothing: may this user read {chips[0]}?"


def _text(path: Path) -> str:
    """Empty where there is no such file."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
