"""Memory of a candidate: its fair share of pages (PSS) over its processes, and the kernel's own high-water mark.

PSS has to be looked at again and again: what lives shorter than the interval may be missed. The high-water mark of
resident pages (VmHWM) misses nothing, and writing 5 to ``/proc/PID/clear_refs`` sets it back, so that each stage of an
answer has its own; but it counts pages that are shared in full, and one process only. Source: `proc_pid_clear_refs` and
`proc_pid_smaps` of the Linux manual pages.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from msgspec.structs import replace

from mmedge.core.board import is_jetson
from mmedge.profiling.machine.kernel_files import ROOT, amounts_of, bytes_of, text_of
from mmedge.profiling.messages import Answered, Ask, Load
from mmedge.profiling.run import OTHER, Memory
from mmedge.profiling.workers import Worker
from mmedge.runtime.clock import Clock

INTERVAL_S = 0.02
LINGER_S = 3 * INTERVAL_S
"""How long a stage stays as it ends, the first time it does, so that one of the looks at PSS falls into it."""
_ONLY_PEAK = "5"
"""What ``clear_refs`` is told to set back."""
_NVMAP = "sys/kernel/debug/nvmap/iovmm/clients"
"""Memory that each process took for a Jetson's GPU; root may read it."""
_CLIENT = re.compile(r"\s(\d+)\s+(\d+)([KMG]?)$", re.MULTILINE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Weight(NamedTuple):
    """Of a tree of processes at one moment, bytes."""

    pss: int
    anon: int | None
    """What of that must stay in memory, shared memory too; None from a kernel before 5.4, which does not tell."""
    file: int | None
    gpu: int | None = None


class WeighingClock(Clock):
    """Also keeps the most resident bytes of each stage, and of what lies between them: ``other``.

    Stages linger, so that they can be looked at: the times of an answer under it are not to be used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peaks: dict[str, int] = {}
        """Empty where the kernel keeps no high-water mark that can be set back."""
        self._exact = reset_peak("self")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._note(OTHER)
        try:
            with super().stage(name):
                yield
                if name not in self.stages_ns:
                    time.sleep(LINGER_S)
        finally:
            self._note(name)

    def _note(self, name: str) -> None:
        if self._exact and (peak := peak_of("self")) is not None:
            self.peaks[name] = max(peak, self.peaks.get(name, 0))
            reset_peak("self")


class Watch:
    """Weighs a process and its descendants again and again, in a thread, until the block ends; once at least."""

    def __init__(self, pid: int, interval_s: float = INTERVAL_S, root: Path = ROOT) -> None:
        self.samples: list[tuple[int, Weight]] = []
        """When, by `time.perf_counter_ns`, and how much."""
        self._pid, self._interval, self._root = pid, interval_s, root
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            began = time.perf_counter_ns()
            if weight := weight_of(tree_of(self._pid, self._root), self._root):
                self.samples.append(((began + time.perf_counter_ns()) // 2, weight))
            if self._ended.wait(self._interval):
                return


def weigh(worker: Worker, c: int, order: Load, asks: Sequence[Ask], root: Path = ROOT) -> tuple[Memory, ...]:
    """Start, open and answer under observation: rows for ``load``, each stage, ``steady`` and ``total``.

    The ``worker`` is one that was not told anything yet. ``total`` is the most of everything; its ``hwm`` is that of
    the worker, without the processes that it started.
    """
    worker.wait_until_started()
    peaks: dict[str, int | None] = {}
    exact = reset_peak(worker.pid, root)
    with Watch(worker.pid, root=root) as opening:
        worker.load(order)
    if exact:
        peaks["load"] = peak_of(worker.pid, root)
    with Watch(worker.pid, root=root) as answering:
        answers = [worker.ask(replace(ask, weigh=True, spans=True)) for ask in asks]
    last = peak_of(worker.pid, root)
    for stage, peak in (each for answered in answers for each in answered.memory.items()):
        peaks[stage] = max(peak, peaks.get(stage) or 0)
    peaks["steady"] = amounts_of(text_of(root / f"proc/{worker.pid}/status")).get("VmRSS")
    weights = {"load": [weight for _, weight in opening.samples], **_by_stage(answers, answering.samples)}
    weights["steady"] = [rest] if (rest := weight_of(tree_of(worker.pid, root), root)) else []
    peaks["total"] = max(filter(None, (*peaks.values(), last)), default=None)
    weights["total"] = [*weights["load"], *(weight for _, weight in answering.samples), *weights["steady"]]
    rows = (_row(c, stage, found, peaks.get(stage), root) for stage, found in weights.items())
    return tuple(map(_possible, rows) if tree_of(worker.pid, root) == [worker.pid] else rows)


def _possible(row: Memory) -> Memory:
    """Of one process: no more than its high-water mark. The kernel walks page by page, and counts twice what moves
    meanwhile."""
    if row.hwm is None or row.pss is None or row.pss <= row.hwm:
        return row
    return replace(row, pss=row.hwm)


def reset_peak(pid: int | str, root: Path = ROOT) -> bool:
    """Begin a new high-water mark of a process; False where the kernel cannot."""
    try:
        (root / f"proc/{pid}/clear_refs").write_text(_ONLY_PEAK)
    except OSError:
        return False
    return True


def peak_of(pid: int | str, root: Path = ROOT) -> int | None:
    """Most resident bytes of a process since its mark was set back, or since it started."""
    return amounts_of(text_of(root / f"proc/{pid}/status")).get("VmHWM")


def tree_of(pid: int, root: Path = ROOT) -> list[int]:
    """A process and all that descend from it, those it left to others too as long as they are of its session."""
    parents, sessions = {}, {}
    for each in filter(str.isdigit, os.listdir(root / "proc")):
        fields = bytes_of(f"{root}/proc/{each}/stat").rpartition(b")")[2].split()
        if len(fields) > 3:
            parents[int(each)], sessions[int(each)] = int(fields[1]), int(fields[3])
    tree = {pid} | {other for other, session in sessions.items() if session == pid}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return sorted(tree)


def weight_of(pids: Sequence[int], root: Path = ROOT) -> Weight | None:
    """Of these processes together; None where none of them tells.

    Processes can only be asked one after another. A page that another one comes to share meanwhile would count in full
    for the one and by half for the other; asked in the opposite order, too little. The lesser of both is told.
    """
    found = [weight for order in (pids, pids[::-1])[: len(pids)] if (weight := _asked_in_turn(order, root))]
    return min(found, key=lambda weight: weight.pss)._replace(gpu=gpu_of(pids, root)) if found else None


def _asked_in_turn(pids: Sequence[int], root: Path) -> Weight | None:
    told = [amounts for pid in pids if (amounts := amounts_of(text_of(root / f"proc/{pid}/smaps_rollup")))]
    if not told:
        return None
    split = all("Pss_Anon" in amounts for amounts in told)
    kept = sum(amounts.get("Pss_Anon", 0) + amounts.get("Pss_Shmem", 0) for amounts in told)
    file = sum(amounts.get("Pss_File", 0) for amounts in told)
    pss = sum(amounts["Pss"] for amounts in told)
    return Weight(pss, kept if split else None, file if split else None)


def gpu_of(pids: Iterable[int], root: Path = ROOT) -> int | None:
    """Bytes that these processes took for a Jetson's GPU; None on other machines, and where it may not be read."""
    text = text_of(root / _NVMAP)
    wanted = {*pids}
    taken = [int(size) * _UNITS[unit] for pid, size, unit in _CLIENT.findall(text) if int(pid) in wanted]
    return sum(taken) if text else None


def _by_stage(answers: Iterable[Answered], samples: Sequence[tuple[int, Weight]]) -> dict[str, list[Weight]]:
    """What was seen during each stage; nothing of those that none of the looks fell into."""
    found: dict[str, list[Weight]] = {}
    for answered in answers:
        for stage in answered.memory:
            found.setdefault(stage, [])
        for stage, begin, end in answered.spans:
            begin, end = answered.start_ns + begin, answered.start_ns + end
            found.setdefault(stage, []).extend(weight for when, weight in samples if begin <= when < end)
    return found


def _row(c: int, stage: str, weights: Sequence[Weight], peak: int | None, root: Path) -> Memory:
    """The highest of each kind: they need not have been reached at the same moment."""
    return Memory(
        c=c,
        stage=stage,
        pss=max((weight.pss for weight in weights), default=None),
        pss_anon=max((weight.anon for weight in weights if weight.anon is not None), default=None),
        pss_file=max((weight.file for weight in weights if weight.file is not None), default=None),
        hwm=peak,
        gpu=max((weight.gpu for weight in weights if weight.gpu is not None), default=None),
        unified=is_jetson(root),
        method="smaps_rollup at rest, VmRSS"
        if stage == "steady"
        else f"smaps_rollup every {INTERVAL_S * 1e3:g} ms, VmHWM",
    )
