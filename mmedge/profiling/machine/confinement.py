"""A real limit to the memory of a process: a control group of its own, or RLIMIT_DATA where none may be made.

They count differently. A control group is charged for every page that its processes were the first to touch, those of
files too, which the kernel takes back before it kills; what another group has read already, such as libraries that are
in use, is free. RLIMIT_DATA counts private memory that may be written, touched or not, and no files. No swap is allowed
inside of a group.

A group is made inside the one that this process is in (version 1), or inside the nearest one around it whose memory is
passed on to its children (version 2): limits that are there already stay in force.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmedge.errors import ResourceError
from mmedge.profiling.machine.kernel_files import ROOT, amounts_of, control_groups, number_of, text_of

Method = Literal["cgroup v2", "cgroup v1", "RLIMIT_DATA"]

_PREFIX = "mmedge-"
_JOIN = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
_LIMIT_DATA = 'ulimit -d "$0" && exec "$@"'
_PATIENCE_S = 10.0
_FILES: dict[int, tuple[str, str, str]] = {
    1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes"),
    2: ("memory.max", "memory.swap.max", "memory.peak"),
}
"""The limit; memory and swap together (version 1) or swap alone (version 2); the most that was charged."""
_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)
_numbers = itertools.count()


@dataclass(frozen=True)
class Confinement:
    """A place with a limit, in which one process can be started."""

    method: Method
    through: tuple[str, ...]
    """What starts a process in it (`core.children.started`)."""
    group: Path | None = None
    version: int = 0

    def peak(self, pid: int) -> int | None:
        """Most bytes that counted so far; with RLIMIT_DATA those that count now, of the process ``pid``."""
        if self.group:
            found = number_of(self.group / _FILES[self.version][2])
            return None if found is None else int(found)
        return amounts_of(text_of(ROOT / f"proc/{pid}/status")).get("VmData")

    def killed(self) -> bool:
        """Whether the kernel has killed inside of it because of the limit."""
        if not self.group:
            return False
        told = _KILLS.search(text_of(self.group / ("memory.oom_control" if self.version == 1 else "memory.events")))
        return bool(told and int(told[1]))


@contextmanager
def confined(limit: int | None, root: Path = ROOT) -> Iterator[Confinement]:
    """A place with ``limit`` bytes, or with none; leaving the block ends what is left in it, and removes it.

    Raises:
        ResourceError: a group cannot be removed.
    """
    for version, parent in control_groups("memory", root):
        if version == 2 and "memory" not in text_of(parent / "cgroup.subtree_control").split():
            continue
        _remove_left(parent, root)
        group = parent / f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        try:
            _make(group)
        except OSError:
            continue  # not ours, or mounted for reading
        try:
            if _set_limit(group, version, limit) and _can_be_joined(group):
                yield Confinement("cgroup v1" if version == 1 else "cgroup v2", _through(group), group, version)
                return
        finally:
            _remove(group)
    kilobytes = "unlimited" if limit is None else str(limit >> 10)
    yield Confinement("RLIMIT_DATA", ("sh", "-c", _LIMIT_DATA, kilobytes))


def _make(group: Path) -> None:
    """The kernel fills the folder with files."""
    group.mkdir()


def _through(group: Path) -> tuple[str, ...]:
    return ("sh", "-c", _JOIN, str(group))


def _set_limit(group: Path, version: int, limit: int | None) -> bool:
    """Whether memory is counted there at all, and the limit was taken."""
    memory, swap, _ = (group / name for name in _FILES[version])
    if not memory.exists():
        return False
    try:
        if limit is not None:
            memory.write_text(str(limit))
        if swap.exists() and (version == 2 or limit is not None):
            swap.write_text("0" if version == 2 else str(limit))
    except OSError:
        return False
    return True


def _can_be_joined(group: Path) -> bool:
    return not subprocess.run([*_through(group), "true"], capture_output=True, check=False).returncode


def _remove(group: Path) -> None:
    """The kernel may take a moment until what was killed has left."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ResourceError(f"the control group `{group}` cannot be removed: {error.strerror}") from error
        for pid in text_of(group / "cgroup.procs").split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)


def _remove_left(parent: Path, root: Path) -> None:
    """Groups of processes that were killed before they could: those that they started have ended with them."""
    for group in parent.glob(f"{_PREFIX}*-*"):
        pid = group.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not (root / "proc" / pid).exists():
            with contextlib.suppress(OSError):
                group.rmdir()
