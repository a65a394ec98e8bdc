"""The inputs of an open graph: some are held until the next reset, the others are checked at every run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from msgspec.structs import replace

from mmedge.core.manifest import Graph
from mmedge.core.ports import Port, Tensors, check_feeds


class Inputs:
    """Checks what a session is given, so that every engine refuses the same things in the same words."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._free: tuple[Port, ...] = graph.inputs
        self._held_sizes: dict[str, int] = {}
        self._accepted: tuple[object, ...] | None = None

    def hold(self, held: Mapping[str, np.ndarray]) -> Tensors:
        """Ask for the inputs in ``held`` no more, and return them as engines take them.

        Raises:
            InputError: one of them is no input, or has the wrong dtype or shape.
        """
        ports = self._graph.inputs
        known = held.keys() <= {port.name for port in ports}
        check_feeds([port for port in ports if port.name in held] if known else ports, held, self._graph.component)
        self._held_sizes = sizes = dict(_sizes(ports, held))
        self._accepted = None
        self._free = tuple(
            replace(port, shape=tuple(sizes.get(str(size), size) for size in port.shape))
            for port in ports
            if port.name not in held
        )
        return _contiguous(held)

    def check(self, feeds: Mapping[str, np.ndarray]) -> Tensors:
        """The inputs of one run as engines take them.

        Raises:
            InputError: a name, dtype or shape is wrong, or one that is not held is missing.
        """
        form = tuple((name, tensor.dtype, tensor.shape) for name, tensor in feeds.items())
        if form != self._accepted:  # as they are at every step but the first two
            check_feeds(self._free, feeds, self._graph.component)
            self._accepted = form
        return _contiguous(feeds)

    def sizes(self, tensors: Tensors) -> dict[str, int]:
        """What the words in the shapes stand for, in what is held and in ``tensors``, which were checked."""
        return self._held_sizes | dict(_sizes(self._graph.inputs, tensors))


def _sizes(ports: Iterable[Port], tensors: Mapping[str, np.ndarray]) -> Iterable[tuple[str, int]]:
    """What the words in the shapes of ``ports`` stand for."""
    for port in ports:
        if port.name in tensors:
            sizes = zip(port.shape, tensors[port.name].shape, strict=True)
            yield from ((word, size) for word, size in sizes if isinstance(word, str))


def _contiguous(tensors: Mapping[str, np.ndarray]) -> Tensors:
    return {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
