"""What gates have seen over time: a file that is only ever appended to, one line of JSON for each run."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from mmedge.errors import BusyError, InputError, UsageError
from mmedge.profiling.judging.gate import Outcome, Word
from mmedge.profiling.run import Run

SCHEMA = "mmedge.history/1"
DOUBTED = "DOUBTED"
"""Marks a run that decided nothing."""
PATIENCE_S = 10.0
"""How long another writer is waited for; writing a line takes milliseconds."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Value(Struct, frozen=True):
    """A metric of a candidate in one run."""

    candidate: str
    metric: str
    stat: str
    value: float | None
    low: float | None
    high: float | None
    outcome: Word


class Entry(Struct, frozen=True):
    """A run."""

    schema: str
    date: str
    """When it began."""
    commit: str | None
    machine: str
    """Its id: only values of one machine are a series."""
    exit_code: int
    values: tuple[Value, ...]
    marks: tuple[str, ...] = ()


class History(Struct, frozen=True):
    """All runs, in the order they were added."""

    entries: tuple[Entry, ...]
    lost: int = 0
    """Lines that cannot be read, because their writer was killed."""


def entry_of(run: Run, found: Outcome) -> Entry:
    """What is kept of a gate."""
    values = {
        (each.candidate, each.metric, each.stat): Value(
            each.candidate, each.metric, each.stat, each.value, each.low, each.high, each.outcome
        )
        for each in found.findings
    }
    marks = (*found.marks, *((DOUBTED,) if found.doubts else ()))
    return Entry(
        schema=SCHEMA,
        date=run.started,
        commit=run.mmedge.commit,
        machine=run.machine.id,
        exit_code=found.exit_code,
        values=tuple(values.values()),
        marks=marks,
    )


def append(entry: Entry, path: Path) -> History:
    """Add a line, on disk when this returns, and return everything that is there now.

    Raises:
        UsageError: the file cannot be written to.
        InputError: it is something else than a history.
        BusyError: another process has been writing to it for `PATIENCE_S`.
    """
    with _locked(path) as descriptor:
        before = _all_of(descriptor)
        history = _read(before, path)
        # What a killed writer left of its line must not swallow ours.
        torn = b"\n" if before and not before.endswith(b"\n") else b""
        _write(descriptor, torn + msgspec.json.encode(entry) + b"\n", len(before))
    return History((*history.entries, entry), history.lost)


def _read(raw: bytes, path: Path) -> History:
    lines = [line for line in raw.splitlines() if line.strip()]
    entries = tuple(_entries(lines))
    if lines and not entries:
        raise InputError(f"`{path}` is not a history of gates: none of its lines is", hint="name another file")
    return History(entries, len(lines) - len(entries))


def _entries(lines: Iterable[bytes]) -> Iterator[Entry]:
    for line in lines:
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except (msgspec.DecodeError, RecursionError):
            continue
        if entry.schema == SCHEMA:
            yield entry


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The open file; no other writer has it meanwhile."""
    try:
        descriptor = os.open(path, _FLAGS, 0o644)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else (error.strerror or "").lower()
        raise UsageError(f"cannot write the history `{path}`: {reason}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"cannot write the history `{path}`: it is not a file")
        _wait_for(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BusyError(f"`{path}` is being written by another process", hint="wait for it") from None
        time.sleep(0.02)


def _all_of(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


def _write(descriptor: int, line: bytes, before: int) -> None:
    """All of it or, where the disk refuses, nothing."""
    try:
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, before)
        raise
