"""Compiling a graph in a process of its own, which is ended when it takes more memory than it may.

An engine such as TensorRT needs several times the weights to build, keeps what it took, and ends the process when it
gets no more: so each graph has a process. Its limit is kept by watching. The others were no use: an address space
(RLIMIT_AS) CUDA reserves by the hundred gigabytes; private memory (RLIMIT_DATA) counts what is reserved and never
touched, and TensorRT answers a refusal with an abort that names nothing; a control group needs rights that most users
of a board do not have. And none of them sees what CUDA takes on a Jetson, where it is the same memory but belongs to
no process: there what is counted is how much less the whole board has left.

The process also volunteers to be the first that the kernel ends when memory runs out, rather than the desktop.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

from mmedge.core import board, find
from mmedge.core.backend import Backend, Options
from mmedge.core.children import Child, as_error, live_with_parent, started
from mmedge.core.manifest import Graph
from mmedge.errors import BackendError, MmedgeError, ResourceError

COMMAND = (sys.executable, "-m", "mmedge.runtime.building")
_ROOT = Path("/")
_EVERY_S = 0.1
_MIB_IN_KB = 1024
_FIGURE = re.compile(r"^(RssAnon|RssShmem|MemAvailable):\s+(\d+) kB$", re.MULTILINE)


class Order(Struct, frozen=True):
    """What to compile; as `Backend.compile` takes it."""

    backend: str
    graph: Graph
    source: str
    output: str
    options: dict[str, str | int | bool]


class Doing(Struct, frozen=True, tag="doing"):
    """How far it is, of an engine that tells."""

    done: float
    """Part of the whole, 0 to 1."""


class Built(Struct, frozen=True, tag="built"):
    """It is done."""

    artifact: str


class Failed(Struct, frozen=True, tag="failed"):
    """An `MmedgeError` of the process."""

    kind: str
    message: str
    hint: str | None


class BuildKilled(BackendError):
    """A process that compiles was ended by a signal: nobody knows whether the graph or the board was to blame."""


class Moment(NamedTuple):
    """How a process that compiles is doing."""

    seconds: float
    taken_mb: float
    peak_mb: float
    done: float | None
    """Part of the whole, 0 to 1, if the engine tells."""


Watch: TypeAlias = Callable[[Moment], None]
"""Hears ten times a second how it is."""


class MemoryMeter:
    """Memory of a process that cannot be given back without ending it, MiB."""

    def __init__(self, process: int, root: Path = _ROOT) -> None:
        self._status = root / "proc" / str(process) / "status"
        self._meminfo = root / "proc/meminfo"
        self._shared = board.is_jetson(root)
        self._before = self._available()

    def taken(self) -> float:
        """Now: of the process, or of the whole board since the start if its GPU has no memory of its own."""
        own = _figures(self._status)
        alone = (own.get("RssAnon", 0) + own.get("RssShmem", 0)) / _MIB_IN_KB
        return max(alone, self._before - self._available()) if self._shared else alone

    def _available(self) -> float:
        return _figures(self._meminfo).get("MemAvailable", 0) / _MIB_IN_KB


def build_apart(
    backend: Backend,
    graph: Graph,
    source: Path,
    output: Path,
    options: Options,
    *,
    watch: Watch = lambda moment: None,
    command: tuple[str, ...] = COMMAND,
) -> Path:
    """Compile as `Backend.compile` does, in a child that ends with this process, with at most
    ``options["builder_mb"]`` MiB (0 or absent: no limit).

    Raises:
        BackendError: the engine is missing, refuses the graph, or died of it (`BuildKilled`: of a signal).
        ResourceError: it takes more memory than it may, or the kernel ended it for that.
    """
    limit = float(options.get("builder_mb", 0))
    order = Order(backend.name, graph, str(source), str(output), dict(options))
    with started(command) as child:
        with suppress(BrokenPipeError):  # then there is no reply either
            child.orders.write(msgspec.json.encode(order) + b"\n")
            child.orders.flush()
        return Path(_Talk(child, graph.component, limit).until_built(watch).artifact)


class _Talk:
    """What a child says, while its memory is watched."""

    def __init__(self, child: Child, component: str, limit: float) -> None:
        self._child = child
        self._component = component
        self._limit = limit
        self._meter = MemoryMeter(child.pid)
        self._begun = time.monotonic()
        self._peak = 0.0
        self._done: float | None = None
        self._heard = b""

    def until_built(self, watch: Watch) -> Built:
        while True:
            if select.select([self._child.replies], [], [], _EVERY_S)[0]:
                reply = self._hear()
                if isinstance(reply, Built):
                    self._weigh(watch)
                    return reply
            self._weigh(watch)

    def _weigh(self, watch: Watch) -> None:
        taken = self._meter.taken()
        self._peak = max(self._peak, taken)
        watch(Moment(time.monotonic() - self._begun, taken, self._peak, self._done))
        if self._limit and taken > self._limit:
            raise _too_much(self._component, f"took {taken:.0f} MiB, it may take {self._limit:.0f}")

    def _hear(self) -> Built | None:
        """What it says now; the last of several messages counts."""
        said = os.read(self._child.replies.fileno(), 1 << 16)
        if not said:
            raise self._death()
        *lines, self._heard = (self._heard + said).split(b"\n")
        for line in lines:
            reply = msgspec.json.decode(line, type=Doing | Built | Failed)
            if isinstance(reply, Built):
                return reply
            if isinstance(reply, Failed):
                raise as_error(reply.kind, reply.message, reply.hint)
            self._done = reply.done
        return None

    def _death(self) -> MmedgeError:
        code, end = self._child.death()
        if code == -signal.SIGKILL:
            allowed = f"; it may take {self._limit:.0f}" if self._limit else ""
            return _too_much(self._component, f"was ended by the system at {self._peak:.0f} MiB{allowed}")
        hint = "`mmedge doctor` says what may be missing"
        kind = BuildKilled if code < 0 else BackendError
        return kind(f"the process that compiles `{self._component}` {end}", hint=hint)


def _too_much(component: str, what: str) -> ResourceError:
    return ResourceError(
        f"the process that compiles `{component}` {what}",
        hint="end what else runs (`sudo systemctl isolate multi-user.target` ends the desktop), or allow more with "
        "`mmedge compile --builder-mb`",
    )


def _figures(path: Path) -> dict[str, int]:
    """Kilobytes by name; empty once the process is gone."""
    try:
        return {name: int(value) for name, value in _FIGURE.findall(path.read_text())}
    except (FileNotFoundError, ProcessLookupError):
        return {}


def main(orders: IO[bytes], replies: IO[bytes]) -> None:
    """The child: compile what it is told to. What is no MmedgeError is a bug, and ends it."""
    with suppress(OSError):  # a hardened system may not let it
        Path("/proc/self/oom_score_adj").write_text("1000")
    order = msgspec.json.decode(orders.readline(), type=Order)
    reply: Built | Failed
    try:
        backend = find.backend(order.backend)
        _tell_progress(backend, replies)
        reply = Built(str(backend.compile(order.graph, Path(order.source), Path(order.output), order.options)))
    except MmedgeError as error:
        reply = Failed(type(error).__name__, error.message, error.hint)
    _send(reply, replies)
    orders.read()  # the parent weighs this process once more before it ends it


def _tell_progress(backend: Backend, replies: IO[bytes]) -> None:
    """Engines that know how far they are have a place for who wants to hear it."""
    said = 0.0

    def tell(phase: str, done: float) -> None:
        nonlocal said
        if time.monotonic() - said >= _EVERY_S:
            said = time.monotonic()
            _send(Doing(done), replies)

    if hasattr(backend, "progress"):
        backend.progress = tell


def _send(reply: Doing | Built | Failed, replies: IO[bytes]) -> None:
    replies.write(msgspec.json.encode(reply) + b"\n")
    replies.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, live_with_parent())
