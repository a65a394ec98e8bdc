"""Which machine this is: for reports, and so that nothing compiled on another one is used here."""

from __future__ import annotations

import platform
import re
from pathlib import Path

from msgspec import Struct

from mmedge.core.machine import usable_cores, usable_memory

_BOARD = Path("/proc/device-tree/model")
_PROCESSORS = Path("/proc/cpuinfo")
_SPELLINGS = {"amd64": "x86_64", "arm64": "aarch64"}


class Device(Struct, frozen=True):
    """A machine as an engine sees it."""

    name: str
    """The board where it has a name (``Raspberry Pi 5 Model B Rev 1.0``), else the processor."""
    arch: str
    """``x86_64`` or ``aarch64``."""
    cores: int
    """That this process may use."""
    memory_mb: int
    """That this process may use, MiB."""
    processor: str
    """Every word by which the kernel tells two kinds of processor apart, instruction sets included."""


def this_device() -> Device:
    """The machine this process runs on."""
    machine = platform.machine().lower()
    kind = _processor(_PROCESSORS.read_text(errors="replace"))
    board = _BOARD.read_text(errors="replace").strip("\0\n ") if _BOARD.exists() else ""
    return Device(
        name=board or kind.get("model name") or machine,
        arch=_SPELLINGS.get(machine, machine),
        cores=usable_cores(),
        memory_mb=usable_memory() >> 20,
        processor="; ".join(f"{name}: {value}" for name, value in sorted(kind.items())),
    )


_TELLING = re.compile(r"vendor_id|cpu family|model|model name|stepping|flags|Features|CPU (?!MHz).*")


def _processor(text: str) -> dict[str, str]:
    """What `/proc/cpuinfo` says of the first processor, without what changes while it runs."""
    first = text.strip().split("\n\n")[0]
    pairs = (line.partition(":")[::2] for line in first.splitlines())
    return {name.strip(): " ".join(value.split()) for name, value in pairs if _TELLING.fullmatch(name.strip())}
