"""The other side of `worker`: starting processes, asking them, keeping them still, and leaving none behind."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from mmedge.core.children import Child, as_error, started
from mmedge.errors import BackendError, ResourceError
from mmedge.profiling.messages import (
    Answered,
    Ask,
    Failed,
    Hello,
    Load,
    Loaded,
    Order,
    Verified,
    Verify,
    read_reply,
    send,
)

COMMAND = (sys.executable, "-m", "mmedge.profiling.worker")

_Reply = TypeVar("_Reply", Hello, Loaded, Verified, Answered)


@contextmanager
def running(name: str, command: Sequence[str] = COMMAND, through: Sequence[str] = ()) -> Iterator[Worker]:
    """A fresh process of the candidate ``name``; leaving the block ends it (`core.children.started`)."""
    born_ns = time.perf_counter_ns()
    with started(command, through) as child:
        yield Worker(name, child, born_ns)


class Worker:
    """A running process of a candidate, to be asked."""

    def __init__(self, name: str, child: Child, born_ns: int) -> None:
        self.name = name
        self.born_ns = born_ns
        """When the process was asked for."""
        self._child = child

    @property
    def pid(self) -> int:
        """Of the process, which leads a group."""
        return self._child.pid

    def wait_until_started(self) -> Hello:
        return self._receive(Hello)

    def load(self, order: Load) -> Loaded:
        return self._request(order, Loaded)

    def verify(self) -> Verified:
        """What is the last that it can be told."""
        return self._request(Verify(), Verified)

    def ask(self, order: Ask, patience_s: float | None = None) -> Answered:
        """
        Raises:
            ResourceError: it has not answered after so many seconds; an engine may hang.
        """
        return self._request(order, Answered, patience_s)

    @contextmanager
    def awake(self) -> Iterator[Worker]:
        """Let it run inside the block only: engines keep threads spinning that would disturb the others.

        After an error it is not stopped again: then it is about to be ended.
        """
        os.killpg(self._child.pid, signal.SIGCONT)
        yield self
        self.pause()

    def pause(self) -> None:
        """Stop it; it has stopped when this returns."""
        os.killpg(self._child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _request(self, order: Order, kind: type[_Reply], patience_s: float | None = None) -> _Reply:
        with suppress(BrokenPipeError):  # then there is no reply either
            send(order, self._child.orders)
        return self._receive(kind, patience_s)

    def _receive(self, kind: type[_Reply], patience_s: float | None = None) -> _Reply:
        # Nothing of a reply is in the buffer yet: every order has one.
        if not select.select([self._child.replies], [], [], patience_s)[0]:
            raise ResourceError(
                f"{self.name} had not answered after {patience_s:.0f} s",
                hint="`mmedge caption` of this bundle on this engine shows whether it ever answers",
            )
        line = self._child.replies.readline()
        if not line.endswith(b"\n"):
            raise self._death()
        reply = read_reply(line)
        if isinstance(reply, Failed):
            raise as_error(reply.kind, f"{self.name}: {reply.message}", reply.hint)
        if not isinstance(reply, kind):
            raise TypeError(f"{kind.__name__} expected of the worker of {self.name}, it replied {reply}")
        return reply

    def _death(self) -> BackendError:
        """What the process that does not reply any more died of, with its last words."""
        code, end = self._child.death()
        killed = "perhaps memory ran out: profile fewer candidates at a time"
        hint = killed if code == -signal.SIGKILL else "`mmedge verify` of this bundle on this engine may say more"
        return BackendError(f"the worker of `{self.name}` {end}", hint=hint)
