"""What a Jetson says of itself: its system software, its module, its power mode, its clocks and temperatures.

Everything is read from files below a root, so that a recorded tree of a board is as good as the board. What is not
there is empty: every other machine is a board with no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_ROOT = Path("/")
_RELEASE = re.compile(r"R(\d+)\s*\(release\).*?REVISION:\s*([\d.]+)")
_MODE = re.compile(r"NV Power Mode:\s*(\S+)")
_NUMBER = re.compile(r"^pmode:\s*0*(\d+)", re.MULTILINE)
_NAMED = re.compile(r"^\s*<\s*POWER_MODEL\s+ID=0*(\d+)\s+NAME=(\S+?)\s*>", re.MULTILINE)
_GPU = re.compile(r"gpu|ga10b|gv11b|gp10b")

JETPACKS = {
    "35.4.1": "5.1.2",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "38.2": "7.0",
    "38.4.0": "7.1",
    "39.1": "7.2",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
"""JetPack by Jetson Linux (L4T). Sources: `packages/l4t/l4t_version.py` of dusty-nv/jetson-containers; devices measured
in the README of Shattered217/Jetson-Orin-Wheels (36.4.7, 39.2.0); the platforms that the wheels of TensorRT-Edge-LLM
0.11 name (38.2, 38.4, 39.2)."""

_GENERATIONS = {"32": "4", "34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}


class Clock(Struct, frozen=True):
    """One clock, MHz."""

    name: str
    """``cpu0`` or ``gpu``, with the number of the policy or the name of the device."""
    now: float
    lowest: float
    """That the governor may choose."""
    highest: float
    possible: float
    """The most the hardware offers; 0 where it does not tell."""

    @property
    def fixed(self) -> bool:
        """Whether `jetson_clocks`, or someone else, left the governor no choice."""
        return self.lowest == self.highest


class Board(Struct, frozen=True):
    """A board as it is now."""

    model: str
    """Such as ``NVIDIA Jetson Orin Nano Developer Kit``; empty on a machine without a device tree."""
    l4t: str
    """Such as ``36.4.7``; empty where this is no Jetson, and in a container that does not see its file."""
    jetpack: str
    """Such as ``6.2.1``, or ``6`` of a release that this version does not know."""
    power_mode: str
    """As `nvpmodel` calls it, such as ``MAXN_SUPER``."""
    clocks: tuple[Clock, ...]
    temperatures: dict[str, float]
    """Degrees Celsius by thermal zone."""
    jetson: bool = False
    """Whether this is one, also where ``l4t`` is not told, as in a container."""

    @property
    def clocks_fixed(self) -> bool:
        """Whether every clock that is told of is fixed."""
        return bool(self.clocks) and all(clock.fixed for clock in self.clocks)


def this_board(root: Path = _ROOT) -> Board:
    """The board whose files are below ``root``."""
    release = l4t(root)
    return Board(
        model=model(root),
        l4t=release,
        jetpack=jetpack(release),
        power_mode=power_mode(root),
        clocks=clocks(root),
        temperatures=temperatures(root),
        jetson=is_jetson(root),
    )


def is_jetson(root: Path = _ROOT) -> bool:
    """Whether GPU and processor share their memory, as all of NVIDIA's chips called Tegra do.

    A container sees neither the system's release nor (with docker) the device tree, but it does see the name of the
    chip's family that Linux gives (``drivers/soc/tegra/fuse``).
    """
    chips = _read(root / "proc/device-tree/compatible")
    family = _read(root / "sys/devices/soc0/family")
    return "nvidia,tegra" in chips or "NVIDIA Jetson" in model(root) or family == "Tegra" or bool(l4t(root))


def l4t(root: Path = _ROOT) -> str:
    """Version of Jetson Linux, such as ``36.4.7``; empty where no file tells it."""
    found = _RELEASE.search(_read(root / "etc/nv_tegra_release"))
    return f"{found[1]}.{found[2].rstrip('.')}" if found else ""


def model(root: Path = _ROOT) -> str:
    """The name in the device tree; empty where there is none."""
    return _read(root / "proc/device-tree/model")


def jetpack(release: str) -> str:
    """The JetPack that brings the Jetson Linux ``release``: as exact as is known, empty if nothing is."""
    parts = release.split(".")
    shorter = (".".join(parts[:count]) for count in range(len(parts), 1, -1))
    return next((JETPACKS[name] for name in shorter if name in JETPACKS), _GENERATIONS.get(parts[0], ""))


def power_mode(root: Path = _ROOT) -> str:
    """What `nvpmodel` set, by its own status file; its number if the configuration does not name it."""
    number = _NUMBER.search(_read(root / "var/lib/nvpmodel/status"))
    names = dict(_NAMED.findall(_read(root / "etc/nvpmodel.conf")))
    return str(names.get(number[1], number[1])) if number else ""


def queried_power_mode(output: str) -> str:
    """What `nvpmodel -q` said; empty if it said nothing of it."""
    found = _MODE.search(output)
    return found[1] if found else ""


def power_modes(root: Path = _ROOT) -> dict[str, str]:
    """Number, as `nvpmodel -m` takes it, by name of every mode that this module offers."""
    return {name: number for number, name in _NAMED.findall(_read(root / "etc/nvpmodel.conf"))}


def clocks(root: Path = _ROOT) -> tuple[Clock, ...]:
    """Of the CPU clusters and the GPU."""
    return (*_cpu_clocks(root), *_gpu_clocks(root))


def temperatures(root: Path = _ROOT) -> dict[str, float]:
    """Degrees Celsius by thermal zone, of the zones that are powered."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        if (value := _number(zone / "temp")) is not None and -40_000 < value < 200_000:
            found[_read(zone / "type") or zone.name] = value / 1e3
    return found


def _cpu_clocks(root: Path) -> Iterator[Clock]:
    for policy in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        now, lowest, highest = (_number(policy / f"scaling_{name}_freq") for name in ("cur", "min", "max"))
        if now is not None and lowest is not None and highest is not None:
            most = _number(policy / "cpuinfo_max_freq") or 0
            yield Clock(policy.name.replace("policy", "cpu"), now / 1e3, lowest / 1e3, highest / 1e3, most / 1e3)


def _gpu_clocks(root: Path) -> Iterator[Clock]:
    for device in sorted((root / "sys/class/devfreq").glob("*")):
        if not _GPU.search(device.name):
            continue
        now, lowest, highest = (_number(device / f"{name}_freq") for name in ("cur", "min", "max"))
        if now is not None and lowest is not None and highest is not None:
            offered = map(int, _read(device / "available_frequencies").split())
            yield Clock(f"gpu {device.name}", now / 1e6, lowest / 1e6, highest / 1e6, max(offered, default=0) / 1e6)


def _number(path: Path) -> float | None:
    text = _read(path)
    return float(text) if text.lstrip("-").isdigit() else None


def _read(path: Path) -> str:
    """Empty where the system does not tell: a zone that is powered down answers with an error."""
    try:
        return path.read_text(errors="replace").strip("\0\n\t ")
    except OSError:
        return ""
