"""What the profiler and its workers say to each other: JSON, a message a line.

Moments are nanoseconds of `time.perf_counter_ns`, which on Linux is one clock for all processes.
"""

from __future__ import annotations

from typing import IO, Literal, TypeAlias

import msgspec
from msgspec import Struct


class Load(Struct, frozen=True, tag="load"):
    """Open a bundle."""

    bundle: str
    backend: str | None
    threads: int


class Verify(Struct, frozen=True, tag="verify"):
    """Replay the golden samples of the bundle that is open."""


class Ask(Struct, frozen=True, tag="ask"):
    """Answer once."""

    task: str
    file: str
    text: str | None
    limit: int | None = None
    spans: bool = False
    """Tell when each stage began and ended."""
    weigh: bool = False
    """Tell the most memory that each stage took; its times are then not to be used."""


class Hello(Struct, frozen=True, tag="hello"):
    """The worker has started and imported what it needs."""

    began_ns: int
    """The interpreter ran."""
    ready_ns: int


class Loaded(Struct, frozen=True, tag="loaded"):
    """The bundle is open."""

    began_ns: int
    ended_ns: int
    engines: dict[str, str]
    """Component to backend."""
    versions: dict[str, str]
    """Of the engines' libraries."""
    spent: dict[str, float] = {}
    """Seconds of ``verify`` and ``compile``."""
    compiled: Literal["hit", "miss", "none"] = "none"


class Verified(Struct, frozen=True, tag="verified"):
    """What the golden samples said; nothing where there are none."""

    failed: tuple[str, ...]


class Answered(Struct, frozen=True, tag="answered"):
    """An answer and its times, taken inside the worker."""

    text: str
    tokens: tuple[int, ...]
    start_ns: int
    answer_ns: int
    stages_ns: dict[str, int]
    token_ns: tuple[int, ...]
    """When each token was there, since the request."""
    spans: tuple[tuple[str, int, int], ...] = ()
    """Stage, begin and end since the request."""
    memory: dict[str, int] = {}
    """Most resident bytes (VmHWM) by stage."""


class Failed(Struct, frozen=True, tag="failed"):
    """An `MmedgeError` of the worker."""

    kind: str
    message: str
    hint: str | None


Order: TypeAlias = Load | Verify | Ask
Reply: TypeAlias = Hello | Loaded | Verified | Answered | Failed


def send(message: Order | Reply, channel: IO[bytes]) -> None:
    """Write a message, at once."""
    channel.write(msgspec.json.encode(message) + b"\n")
    channel.flush()


def read_order(line: bytes) -> Order:
    """For the worker."""
    return msgspec.json.decode(line, type=Load | Verify | Ask)


def read_reply(line: bytes) -> Reply:
    """For the profiler."""
    return msgspec.json.decode(line, type=Hello | Loaded | Verified | Answered | Failed)
