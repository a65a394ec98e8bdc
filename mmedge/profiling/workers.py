"""The other side of `worker`: starting processes, asking them, keeping them still, and leaving none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TypeVar

from mmedge import errors
from mmedge.core.names import shown
from mmedge.errors import BackendError, MmedgeError
from mmedge.profiling.messages import (
    Answered,
    Ask,
    Failed,
    Hello,
    Load,
    Loaded,
    Memory,
    Order,
    Weigh,
    read_reply,
    send,
)

COMMAND = (sys.executable, "-m", "mmedge.profiling.worker")
_TAIL = 4096

_Reply = TypeVar("_Reply", Hello, Loaded, Answered, Memory)


@contextmanager
def running(name: str, command: Sequence[str] = COMMAND) -> Iterator[Worker]:
    """A fresh process of the candidate ``name``; leaving the block ends it, whatever it is doing.

    It leads a process group of its own: Ctrl-C reaches only this process, which then ends the whole group.
    """
    with tempfile.TemporaryFile() as complaints:
        born = time.perf_counter()
        process = subprocess.Popen(
            [*command, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=_environment(),
            start_new_session=True,
        )
        try:
            yield Worker(name, process, complaints, born)
        finally:
            _end(process)


class Worker:
    """A running process of a candidate, to be asked."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], complaints: IO[bytes], born: float) -> None:
        assert process.stdin and process.stdout
        self.name = name
        self._process = process
        self._orders, self._replies = process.stdin, process.stdout
        self._complaints = complaints
        self._born = born

    @property
    def age(self) -> float:
        """Seconds since the process was asked for."""
        return time.perf_counter() - self._born

    def wait_until_started(self) -> None:
        self._receive(Hello)

    def load(self, order: Load) -> Loaded:
        return self._request(order, Loaded)

    def ask(self, order: Ask) -> Answered:
        return self._request(order, Answered)

    def weigh(self) -> Memory:
        return self._request(Weigh(), Memory)

    @contextmanager
    def awake(self) -> Iterator[Worker]:
        """Let it run inside the block only: engines keep threads spinning that would disturb the others.

        After an error it is not stopped again: then it is about to be ended.
        """
        os.killpg(self._process.pid, signal.SIGCONT)
        yield self
        self.pause()

    def pause(self) -> None:
        """Stop it; it has stopped when this returns."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _request(self, order: Order, kind: type[_Reply]) -> _Reply:
        with suppress(BrokenPipeError):  # then there is no reply either
            send(order, self._orders)
        return self._receive(kind)

    def _receive(self, kind: type[_Reply]) -> _Reply:
        line = self._replies.readline()
        if not line.endswith(b"\n"):
            raise self._death()
        reply = read_reply(line)
        if isinstance(reply, Failed):
            raise _as_error(reply, self.name)
        if not isinstance(reply, kind):
            raise TypeError(f"{kind.__name__} expected of the worker of {self.name}, it replied {reply}")
        return reply

    def _death(self) -> BackendError:
        """What the process that does not reply any more died of, with its last words."""
        code = self._process.wait()
        end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._complaints.seek(max(0, self._complaints.seek(0, os.SEEK_END) - _TAIL))
        words = self._complaints.read().decode(errors="replace").strip().splitlines()
        said = f": {shown(words[-1], 300)}" if words else ""
        killed = "perhaps memory ran out: profile fewer candidates at a time"
        hint = killed if code == -signal.SIGKILL else "`mmedge verify` of this bundle on this engine may say more"
        return BackendError(f"the worker of `{self.name}` {end}{said}", hint=hint)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those it started, stopped ones too, and leave no zombie."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with suppress(BrokenPipeError):  # an order that nobody took
            pipe.close()


def _as_error(failure: Failed, name: str) -> MmedgeError:
    """The worker's own error, with its exit code, saying whose it is."""
    kind = getattr(errors, failure.kind, MmedgeError)
    error = kind(f"{name}: {failure.message}", hint=failure.hint)
    assert isinstance(error, MmedgeError)
    return error


def _environment() -> dict[str, str]:
    """Workers import what this process would import, and nothing from the folder it happens to be in."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
