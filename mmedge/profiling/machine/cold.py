"""The cold start: from asking for a process to its first answer, again and again, and what each part of it took.

A start is repeated with the files of the bundle dropped from memory and with all of them in it, and, of engines that
compile, in a place where nothing is compiled yet: an empty folder of its own, so that nothing of the user's is touched.
Python and the engine's libraries stay in memory: other processes have them open.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

from mmedge.core.bundle import open_bundle
from mmedge.profiling.machine import page_cache
from mmedge.profiling.messages import Ask, Load
from mmedge.profiling.run import Candidate, Cold, Flag
from mmedge.profiling.starts import Start
from mmedge.profiling.workers import COMMAND, running
from mmedge.runtime import kept

STARTS = 5
LONGEST_MISSES_S = 60.0
"""Compiling is repeated for so long, and done once at least: with TensorRT it takes minutes."""
MOST_LEFT = 0.05
"""Share of the files' pages that may stay in memory for a start to be called cold."""
_LASTING = "/var/tmp"
"""Temporary files that lie on a disk, where ``/tmp`` may be memory."""


class ColdStarts(NamedTuple):
    """What was measured, and what could not be."""

    rows: tuple[Cold, ...]
    flags: tuple[Flag, ...]


class _Case(NamedTuple):
    pages: Literal["cold", "warm"]
    anew: bool
    """With nothing compiled."""


def cold_starts(
    c: int,
    candidate: Candidate,
    ask: Ask,
    *,
    starts: int = STARTS,
    command: Sequence[str] = COMMAND,
    say: Callable[[str], None] = lambda line: None,
) -> ColdStarts:
    """Start ``candidate``, number ``c`` of the run, in each way in turns; nobody may have its bundle open meanwhile."""
    compiled = _start(c, candidate, ask, _Case("warm", anew=False), command).compiled  # and what is missing is made
    files = files_of(candidate)
    left = page_cache.drop(files)
    cases = [_Case("warm", anew=False)]
    if left.share is not None and left.share <= MOST_LEFT:
        cases.insert(0, _Case("cold", anew=False))
    if compiled != "none":
        cases.append(_Case(cases[0].pages, anew=True))
    rows, spent = [], 0.0
    for index in range(starts):
        for case in cases:
            if case.anew and index and spent * (index + 1) / index > LONGEST_MISSES_S:
                continue
            say(f"start {index + 1} of {starts}: {candidate.name}, {case.pages}")
            rows.append(_start(c, candidate, ask, case, command))
            spent += rows[-1].total_s if case.anew else 0.0
    return ColdStarts(tuple(rows), tuple(_doubts(candidate, left)))


def _start(c: int, candidate: Candidate, ask: Ask, case: _Case, command: Sequence[str]) -> Cold:
    files = files_of(candidate)
    (page_cache.drop if case.pages == "cold" else page_cache.fill)(files)
    place = _nothing_compiled() if case.anew else nullcontext(())
    with place as through, running(candidate.name, candidate.command or command, through) as worker:
        hello = worker.wait_until_started()
        loaded = worker.load(Load(candidate.bundle, candidate.backend, candidate.threads))
        answered = worker.ask(ask)
        return Start(worker.born_ns, hello, loaded).ledger(c, case.pages, answered)


@contextmanager
def _nothing_compiled() -> Iterator[tuple[str, ...]]:
    """What to start a process through, so that it finds nothing compiled and keeps what it compiles in the block."""
    lasting = _LASTING if os.access(_LASTING, os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="mmedge-", dir=lasting) as folder:
        yield ("env", f"{kept.CHOSEN}={folder}")


def files_of(candidate: Candidate) -> list[Path]:
    """Of its bundle, and what was compiled of it; of another program what it reads."""
    path = Path(candidate.bundle)
    if not candidate.bundle or path.is_file():
        return [path] if candidate.bundle else []
    return page_cache.files_in((path,) if candidate.command else (path, *kept.places(open_bundle(path))))


def _doubts(candidate: Candidate, left: page_cache.Cached) -> Iterator[Flag]:
    if left.share is None:
        yield Flag(
            "pages_unknown",
            "note",
            f"{candidate.name}: no cold starts, since the kernel does not tell this user which files are in memory",
            "measure as the owner of the bundle",
        )
    elif left.share > MOST_LEFT:
        yield Flag(
            "pages_stay",
            "note",
            f"{candidate.name}: no cold starts, since {left.share:.0%} of its files cannot be dropped from memory",
            "end what has them open; files on a disk of memory are always in it",
        )
