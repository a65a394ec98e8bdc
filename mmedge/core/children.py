"""Processes of our own: each leads a process group, ends with this process, and leaves nothing behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from mmedge import errors
from mmedge.core.names import shown
from mmedge.errors import MmedgeError

_TAIL = 4096
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl


class Child:
    """A running process with its standard input and output; what it complains about is kept."""

    def __init__(self, process: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
        assert process.stdin and process.stdout
        self.process = process
        self.orders, self.replies = process.stdin, process.stdout
        self._complaints = complaints

    @property
    def pid(self) -> int:
        return self.process.pid

    def death(self) -> tuple[int, str]:
        """Exit code, negative for a signal, and what that means with the last words, of a process that is ending."""
        code = self.process.wait()
        end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._complaints.seek(max(0, self._complaints.seek(0, os.SEEK_END) - _TAIL))
        words = self._complaints.read().decode(errors="replace").strip().splitlines()
        return code, end + (f": {shown(words[-1], 300)}" if words else "")


@contextmanager
def started(command: Sequence[str], through: Sequence[str] = ()) -> Iterator[Child]:
    """A fresh process whose last argument is the number of this one; leaving the block ends it, whatever it is doing.

    It leads a process group of its own: Ctrl-C reaches only this process, which then ends the whole group. ``through``
    comes before it on the command line, and makes way for it (``env NAME=value``).
    """
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [*through, *_away_from_here(command), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=_environment(),
            start_new_session=True,
        )
        try:
            yield Child(process, complaints)
        finally:
            _end(process)


def live_with_parent() -> IO[bytes]:
    """For the child: end when the process that is named in the last argument ends, even while stopped, and return
    where replies go; engines that print go to standard error.
    """
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != int(sys.argv[-1]):
        raise SystemExit(1)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def as_error(kind: str, message: str, hint: str | None) -> MmedgeError:
    """The error that a child met, by the name of its class, with its exit code."""
    error = getattr(errors, kind, MmedgeError)(message, hint=hint)
    assert isinstance(error, MmedgeError)
    return error


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it started, stopped ones too, and leave no zombie."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with suppress(BrokenPipeError):  # an order that nobody took
            pipe.close()


def _away_from_here(command: Sequence[str]) -> list[str]:
    """A module (``python -m name``) run without the current folder, which Python before 3.11 always searches first."""
    if len(command) < 3 or command[1] != "-m":
        return [*command]
    python, _, name, *rest = command
    program = (
        "import sys; sys.path[:] = [entry for entry in sys.path if entry]; "
        f"import runpy; runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    )
    return [python, "-c", program, *rest]


def _environment() -> dict[str, str]:
    """Children import what this process would import, and nothing from the folder it happens to be in."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
