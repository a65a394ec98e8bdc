"""The files in which the kernel tells numbers, below a root: a written tree of them is as good as a machine."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

ROOT = Path("/")
_LONGEST = 1 << 18
_AMOUNT = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)


def text_of(path: Path) -> str:
    """Empty where the kernel does not tell: a sensor that is powered down answers with an error."""
    try:
        return path.read_text(errors="replace").strip("\0\n\t ")
    except OSError:
        return ""


def bytes_of(path: str) -> bytes:
    """At most what fits a page, with a third of the effort of `text_of`; empty where there is nothing (any more)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def number_of(path: Path) -> float | None:
    """None where there is no number."""
    return as_number(text_of(path))


def as_number(text: str) -> float | None:
    """None if it is none."""
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None


def amounts_of(text: str) -> dict[str, int]:
    """Bytes by name, of lines such as ``Pss:  120 kB``."""
    return {name: int(value) << 10 for name, value in _AMOUNT.findall(text)}


class Opened:
    """A file that is read again and again: opened once, which is most of what reading it costs."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return
        weakref.finalize(self, os.close, self._descriptor)

    def text(self) -> str:
        """As it is now; empty where the kernel does not tell."""
        if self._descriptor is None:
            return ""
        try:
            return os.pread(self._descriptor, _LONGEST, 0).decode(errors="replace").strip("\0\n\t ")
        except OSError:
            return ""

    def number(self) -> float | None:
        return as_number(self.text())


def control_groups(controller: str, root: Path = ROOT) -> Iterator[tuple[Literal[1, 2], Path]]:
    """Version and folder of the control group of this process that may have this controller, then of those around it.

    A container may see a path of its host that is not there for it: its own group is then the root of the mount.
    """
    for line in text_of(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount, inside = root / "sys/fs/cgroup" / (controller if controllers else ""), PurePosixPath(path.lstrip("/"))
        for folder in (inside, *inside.parents):
            if (mount / folder / "cgroup.procs").exists():
                yield 1 if controllers else 2, mount / folder
