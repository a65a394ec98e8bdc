"""What the profiler and its workers say to each other: JSON, a message a line."""

from __future__ import annotations

from typing import IO, TypeAlias

import msgspec
from msgspec import Struct


class Load(Struct, frozen=True, tag="load"):
    """Open a bundle."""

    bundle: str
    backend: str | None
    threads: int


class Ask(Struct, frozen=True, tag="ask"):
    """Answer once."""

    task: str
    picture: str
    text: str | None
    limit: int | None


class Weigh(Struct, frozen=True, tag="weigh"):
    """Say how much memory you take."""


class Hello(Struct, frozen=True, tag="hello"):
    """The worker has started and imported what it needs."""


class Loaded(Struct, frozen=True, tag="loaded"):
    """The bundle is open."""

    seconds: float
    engines: dict[str, str]
    """Component to backend."""
    versions: dict[str, str]
    """Of the engines' libraries."""


class Answered(Struct, frozen=True, tag="answered"):
    """An answer and its times, taken inside the worker."""

    text: str
    answer_ms: float
    stages_ms: dict[str, float]
    token_ms: tuple[float, ...]
    """When each token was there, since the request."""


class Memory(Struct, frozen=True, tag="memory"):
    """Of the whole process, bytes."""

    pss: int
    """Its fair share of resident pages."""
    anonymous: int
    """What of that must stay in memory; the rest are pages of files, which the kernel may drop and read again."""
    peak: int
    """Most resident pages so far (VmHWM), shared ones in full."""


class Failed(Struct, frozen=True, tag="failed"):
    """An `MmedgeError` of the worker."""

    kind: str
    message: str
    hint: str | None


Order: TypeAlias = Load | Ask | Weigh
Reply: TypeAlias = Hello | Loaded | Answered | Memory | Failed


def send(message: Order | Reply, channel: IO[bytes]) -> None:
    """Write a message, at once."""
    channel.write(msgspec.json.encode(message) + b"\n")
    channel.flush()


def read_order(line: bytes) -> Order:
    """For the worker."""
    return msgspec.json.decode(line, type=Load | Ask | Weigh)


def read_reply(line: bytes) -> Reply:
    """For the profiler."""
    return msgspec.json.decode(line, type=Hello | Loaded | Answered | Memory | Failed)
