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


class CacheShape(Struct, frozen=True, forbid_unknown_fields=True):
    """A decoder's key/value cache: per layer a key and a value of ``[1, heads, past, head_dim]``.

    The names are the same in every decoder graph, so backends need no other description of the cache.
    """

    layers: int
    heads: int
    head_dim: int
    dtype: str = "float32"

    def past(self) -> tuple[Port, ...]:
        """Inputs: what earlier steps left; ``past`` may be 0."""
        return self._ports("past", "past")

    def present(self) -> tuple[Port, ...]:
        """Outputs: the past followed by this step's keys and values."""
        return self._ports("present", "total")

    def _ports(self, prefix: str, length: str) -> tuple[Port, ...]:
        shape = (1, self.heads, length, self.head_dim)
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
