"""Memory of an open TensorRT engine: one place for each input and output, and two in turn for what a step hands on."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from mmedge.backends._cuda import Cuda, host_bytes
from mmedge.core.manifest import Graph

TOKEN_IN, TOKEN_OUT = "input_ids", "token"


class Places:
    """Addresses on the device, allocated once for the largest sizes.

    In each turn a decoder reads one set of cache buffers and writes the other; the token that it chooses lies with the
    set, where a step of one token reads it. What the engine itself writes in place has the same address in both.
    """

    def __init__(self, graph: Graph, engine: Any, feeds_back: bool, buffers: Buffers) -> None:
        sizes = buffers.largest
        pairs = [(past.name, present.name) for past, present in _pairs(graph)]
        self._feeds_back = feeds_back
        self._turning = {name for pair in pairs for name in pair} | ({TOKEN_OUT} if feeds_back else set())
        self._plain = {name: buffers.device(size) for name, size in sizes.items() if name not in self._turning}
        self.cache: list[tuple[int, int]] = []
        """Address and size of every buffer that is cleared at a reset."""
        self._turns: tuple[dict[str, int], ...] = ({}, {})
        for past, present in pairs:
            first = buffers.device(sizes[past])
            second = first if _in_place(engine, past, present) else buffers.device(sizes[past])
            self._turns[0].update({past: first, present: second})
            self._turns[1].update({past: second, present: first})
            self.cache += [(address, sizes[past]) for address in {first, second}]
        self._tokens = [buffers.device(sizes[TOKEN_OUT]) for _ in range(2)] if feeds_back else []

    def of(self, turn: int, step: bool) -> dict[str, int]:
        """Addresses by input and output in a turn, for a ``step`` of one token or for a prompt."""
        places = self._plain | self._turns[turn]
        if self._feeds_back:
            places[TOKEN_OUT] = self._tokens[1 - turn]
        if self._feeds_back and step:
            places[TOKEN_IN] = self._tokens[turn]
        return places


class Buffers:
    """Memory that is given back together: on the device, and pinned on the host for what is copied often."""

    def __init__(self, cuda: Cuda, stream: int, owned: ExitStack) -> None:
        self._cuda = cuda
        self._stream = stream
        self._owned = owned
        self._pinned: dict[str, np.ndarray] = {}
        self.largest: dict[str, int] = {}
        """Bytes that an input or output takes at most."""

    def device(self, size: int) -> int:
        address = self._cuda.allocate(max(size, 1))
        self._owned.callback(self._cuda.free, address)
        return address

    def upload(self, name: str, tensor: np.ndarray, address: int) -> None:
        """Enqueue the copy of an input, by way of memory that stays as it is meanwhile."""
        staged = self._staged(name, tensor.nbytes)
        staged[:] = tensor.reshape(-1).view(np.uint8)
        self._cuda.to_device(address, staged.ctypes.data, tensor.nbytes, self._stream)

    def download(self, name: str, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Enqueue the copy of an output; what is in the array is right once the stream was synchronized."""
        staged = self._staged(name, int(np.prod(shape)) * dtype.itemsize)
        self._cuda.to_host(staged.ctypes.data, address, staged.nbytes, self._stream)
        return staged.view(dtype).reshape(shape)

    def _staged(self, name: str, size: int) -> np.ndarray:
        """Allocated when an input is first fed or an output first asked for: what is held needs none."""
        if name not in self._pinned:
            most = max(self.largest[name], 1)
            address = self._cuda.allocate_host(most)
            self._owned.callback(self._cuda.free_host, address)
            self._pinned[name] = host_bytes(address, most)
        return self._pinned[name][:size]


def _pairs(graph: Graph) -> Any:
    return zip(graph.cache.past(), graph.cache.present(), strict=True) if graph.cache else ()


def _in_place(engine: Any, past: str, present: str) -> bool:
    """Whether the engine updates a cache where it is, as the operator TensorScatter does from TensorRT 10.15 on."""
    return hasattr(engine, "get_aliased_input_tensor") and engine.get_aliased_input_tensor(present) == past
