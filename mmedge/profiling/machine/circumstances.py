"""What makes every number of this process doubtful, however long it measures: how it was started, and beside whom."""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from mmedge.profiling.machine.kernel_files import ROOT, text_of
from mmedge.profiling.run import Flag

COARSEST_NS = 10_000
"""Clocks that tick slower cannot time a stage."""
_LOOKS = 2_000


def circumstances(root: Path = ROOT) -> tuple[Flag, ...]:
    """Reasons for doubt that nothing else in a run tells: a clock that is too coarse, a build or a mode of Python for
    finding errors, other processes of mmedge."""
    return (*_clock_flags(clock_step_ns()), *_build_flags(), *_company_flags(others_running(root)))


def clock_step_ns() -> int:
    """The smallest step that the clock of all measurements was seen to make."""
    moments = [time.perf_counter_ns() for _ in range(_LOOKS)]
    return min((later - earlier for earlier, later in pairwise(moments) if later > earlier), default=COARSEST_NS + 1)


def others_running(root: Path = ROOT) -> tuple[int, ...]:
    """Numbers of processes of mmedge that do not belong to this one: none of its ancestors and descendants."""
    parents: dict[int, int] = {}
    found = []
    for file in root.glob("proc/[0-9]*/stat"):
        pid, fields = int(file.parent.name), text_of(file).rpartition(")")[2].split()
        if len(fields) > 1 and fields[0] != "Z":
            parents[pid] = int(fields[1])
            if is_mmedge(text_of(file.with_name("cmdline")).split("\0")):
                found.append(pid)
    own, above = os.getpid(), {*_line_of(os.getpid(), parents)}
    return tuple(sorted(pid for pid in found if pid not in above and own not in _line_of(pid, parents)))


def is_mmedge(words: Sequence[str]) -> bool:
    """Whether a command line is the command itself, a module of it, or one of its processes (`core.children`)."""
    if any(Path(word).name == "mmedge" for word in words[:2]):
        return True
    if "-m" in words[1:-1]:
        return words[words.index("-m") + 1].partition(".")[0] == "mmedge"
    return words[1:2] == ["-c"] and "run_module('mmedge" in words[2]


def _line_of(pid: int, parents: dict[int, int]) -> list[int]:
    """A process with its ancestors."""
    line = [pid]
    while line[-1] in parents and parents[line[-1]] not in line:
        line.append(parents[line[-1]])
    return line


def _clock_flags(step_ns: int) -> Iterator[Flag]:
    if step_ns > COARSEST_NS:
        yield Flag(
            "coarse_clock",
            "warning",
            f"the clock moves in steps of {step_ns / 1e3:.0f} us: short stages cannot be told apart",
            "see /sys/devices/system/clocksource/clocksource0: a better one may be available",
        )


def _build_flags() -> Iterator[Flag]:
    kinds = {
        "a debug build": bool(sysconfig.get_config_var("Py_DEBUG")),
        "in development mode (-X dev)": sys.flags.dev_mode,
        "under a debugger or a coverage tool": sys.gettrace() is not None or sys.getprofile() is not None,
    }
    if slow := [kind for kind, applies in kinds.items() if applies]:
        yield Flag(
            "debug_build", "warning", f"Python runs {' and '.join(slow)}, which slows it down", "use a plain python"
        )


def _company_flags(others: tuple[int, ...]) -> Iterator[Flag]:
    if others:
        several = "processes" if len(others) > 1 else "process"
        numbers = ", ".join(map(str, others))
        yield Flag(
            "others_running", "warning", f"mmedge runs besides as {several} {numbers}", "wait until it has ended"
        )
