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

import re
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeAlias

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


class Built(Struct, frozen=True, tag="built"):
    """It is done."""

    artifact: str


class Failed(Struct, frozen=True, tag="failed"):
    """An `MmedgeError` of the process."""

    kind: str
    message: str
    hint: str | None


Watch: TypeAlias = Callable[[float, float], None]
"""Hears seconds since the start and the memory taken now, MiB, ten times a second."""


class MemoryMeter:
    """Memory of a process that cannot be given back without ending it, MiB."""

    def __init__(self, process: int, root: Path = _ROOT) -> None:
        self._status = root / "proc" / str(process) / "status"
        self._meminfo = root / "proc/meminfo"
        self._shared = bool(board.l4t(root))
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
    watch: Watch = lambda seconds, taken: None,
    command: tuple[str, ...] = COMMAND,
) -> Path:
    """Compile as `Backend.compile` does, in a child that ends with this process, with at most
    ``options["builder_mb"]`` MiB (0 or absent: no limit).

    Raises:
        BackendError: the engine is missing, refuses the graph, or died of it.
        ResourceError: it takes more memory than it may, or the kernel ended it for that.
    """
    limit = float(options.get("builder_mb", 0))
    order = Order(backend.name, graph, str(source), str(output), dict(options))
    with started(command) as child:
        with suppress(BrokenPipeError):  # then there is no reply either
            child.orders.write(msgspec.json.encode(order) + b"\n")
            child.orders.flush()
        peak = _wait(child, graph.component, limit, watch)
        return Path(_read(child, graph.component, limit, peak).artifact)


def _wait(child: Child, component: str, limit: float, watch: Watch) -> float:
    """Until it replies or dies; the most memory it took."""
    meter, begun, peak = MemoryMeter(child.pid), time.monotonic(), 0.0
    while True:
        replied = bool(select.select([child.replies], [], [], _EVERY_S)[0])
        taken = meter.taken()
        peak = max(peak, taken)
        watch(time.monotonic() - begun, taken)
        if limit and taken > limit:
            raise _too_much(component, f"took {taken:.0f} MiB, it may take {limit:.0f}")
        if replied:
            return peak


def _read(child: Child, component: str, limit: float, peak: float) -> Built:
    line = child.replies.readline()
    if line.endswith(b"\n"):
        reply = msgspec.json.decode(line, type=Built | Failed)
        if isinstance(reply, Built):
            return reply
        raise as_error(reply.kind, reply.message, reply.hint)
    code, end = child.death()
    if code == -signal.SIGKILL:
        allowed = f"; it may take {limit:.0f}" if limit else ""
        raise _too_much(component, f"was ended by the system at {peak:.0f} MiB{allowed}")
    raise BackendError(
        f"the process that compiles `{component}` {end}", hint="`mmedge doctor` says what may be missing"
    )


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
        made = backend.compile(order.graph, Path(order.source), Path(order.output), order.options)
        reply = Built(str(made))
    except MmedgeError as error:
        reply = Failed(type(error).__name__, error.message, error.hint)
    replies.write(msgspec.json.encode(reply) + b"\n")
    replies.flush()
    orders.read()  # the parent weighs this process once more before it ends it


if __name__ == "__main__":
    main(sys.stdin.buffer, live_with_parent())
