"""Tensors at the edges of graphs, and the check that what is fed is what the graph asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np
from msgspec import Struct

from mmedge.errors import InputError

Tensors: TypeAlias = dict[str, np.ndarray]


class Port(Struct, frozen=True, forbid_unknown_fields=True):
    """A tensor at the edge of a graph; a word in ``shape`` is a size that may vary from run to run."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Span(Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """The range of a size that varies."""

    smallest: int
    usual: int
    """What an engine is tuned for."""
    largest: int


class CacheShape(Struct, frozen=True, forbid_unknown_fields=True):
    """A decoder's key/value cache: per layer a key and a value of ``[1, heads, past, head_dim]``.

    It grows with every step; or, with a ``capacity``, it is of that fixed length from the start, and each step writes
    its keys and values into the slots from ``cache_position`` on. A fixed cache never moves, so that an engine can
    keep its addresses and replay a recorded step. A ``shared`` one is of any length from the start, for one or several
    answers at once, and an attention of the engine's own writes it in place: past and present are the same memory. The
    names are the same in every decoder graph, so backends need no other description of the cache.
    """

    layers: int
    heads: int
    head_dim: int
    dtype: str = "float32"
    capacity: int = 0
    """Slots of a fixed cache; 0 for one that grows or is shared."""
    shared: bool = False

    def past(self) -> tuple[Port, ...]:
        """Inputs: what earlier steps left; where the cache grows, ``past`` may be 0."""
        return self._ports("past", "slots" if self.shared else self.capacity or "past")

    def present(self) -> tuple[Port, ...]:
        """Outputs: the past with this step's keys and values."""
        return self._ports("present", "slots" if self.shared else self.capacity or "total")

    def steering(self) -> tuple[Port, ...]:
        """Inputs that say where a cache is written and read; a session makes them itself (`backends._cache`).

        Of a fixed one, ``cache_position`` int64 ``[1]`` is the slot of the first new key, ``attention_bias`` float32
        ``[1, 1, length, capacity]`` is added to the attention scores: 0 where a token looks, -6,000 elsewhere. Of a
        shared one, ``seqlens_k`` int32 ``[batch]`` is the slot of each answer's last new key, and
        ``total_sequence_length`` int32 the number of slots that the longest uses with it.
        """
        if self.shared:
            return Port("seqlens_k", "int32", ("batch",)), Port("total_sequence_length", "int32", ())
        if not self.capacity:
            return ()
        bias = Port("attention_bias", "float32", (1, 1, "length", self.capacity))
        return Port("cache_position", "int64", (1,)), bias

    def _ports(self, prefix: str, length: int | str) -> tuple[Port, ...]:
        shape = ("batch" if self.shared else 1, self.heads, length, self.head_dim)
        names = (f"{prefix}.{layer}.{part}" for layer in range(self.layers) for part in ("key", "value"))
        return tuple(Port(name, self.dtype, shape) for name in names)


def check_feeds(ports: Iterable[Port], feeds: Mapping[str, np.ndarray], graph: str) -> None:
    """Refuse wrong names, dtypes and shapes with one message for every backend; nothing is cast silently.

    Raises:
        InputError: naming the graph, the input, what it expects and what it got.
    """
    ports = tuple(ports)
    sizes: dict[str, int] = {}
    names = {port.name for port in ports}
    if unknown := sorted(feeds.keys() - names):
        raise InputError(f"`{graph}` has no input `{unknown[0]}`", hint=f"its inputs are {', '.join(sorted(names))}")
    for port in ports:
        if port.name not in feeds:
            raise InputError(f"`{graph}` was not given its input `{port.name}` {_spell(port.dtype, port.shape)}")
        _check_feed(port, feeds[port.name], graph, sizes)


def _check_feed(port: Port, tensor: np.ndarray, graph: str, sizes: dict[str, int]) -> None:
    fits = tensor.dtype == np.dtype(port.dtype) and tensor.ndim == len(port.shape)
    for size, asked in zip(tensor.shape, port.shape, strict=True) if tensor.ndim == len(port.shape) else ():
        fits &= size == (asked if isinstance(asked, int) else sizes.setdefault(asked, size))
    if not fits:
        raise InputError(
            f"input `{port.name}` of `{graph}` is {_spell(str(tensor.dtype), tensor.shape)}, "
            f"expected {_spell(port.dtype, tuple(sizes.get(str(size), size) for size in port.shape))}"
        )


def _spell(dtype: str, shape: tuple[int | str, ...]) -> str:
    return f"{dtype} [{', '.join(map(str, shape))}]"
