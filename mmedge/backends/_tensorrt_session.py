"""A session of TensorRT: how one run goes.

A decoder's engine has a profile for one token and another for prompts, so that its weights are held once. The cache is
two sets of buffers: a step reads one and writes the other, and at the next step they change places, so that nothing is
copied. The token that the graph chose lies with them: fed back, it never leaves the device. Every profile has a context
for each of the two turns; so the step of one token is recorded once for each turn as a CUDA graph, and then launched as
a whole. As only one of them runs at a time, they share the memory for what lies between inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from mmedge.backends._cache import FixedCache
from mmedge.backends._cuda import Cuda
from mmedge.backends._engine import chosen, closed
from mmedge.backends._inputs import Inputs
from mmedge.backends._tensorrt import profiles_of, spell
from mmedge.backends._tensorrt_context import Edges, Way, scratch_size
from mmedge.backends._tensorrt_memory import TOKEN_IN, TOKEN_OUT, Buffers, Places
from mmedge.core.manifest import Graph
from mmedge.core.ports import Tensors
from mmedge.errors import BackendError, InputError


class TensorRtSession:
    """An open graph; whatever it holds on the device is in ``owned``."""

    def __init__(self, graph: Graph, engine: Any, cuda: Cuda, owned: ExitStack, record: bool) -> None:
        self._graph = graph
        self._engine = engine
        self._cuda = cuda
        self._owned = owned
        self._record = record
        self._profiles = profiles_of(graph)
        self._inputs = Inputs(graph)
        self._edges = Edges(graph, engine)
        self._stream = cuda.new_stream()
        owned.callback(cuda.destroy_stream, self._stream)
        self._buffers = Buffers(cuda, self._stream, owned)
        self._scratch = self._buffers.device(scratch_size(engine))
        self._ways: dict[tuple[int, int], Way] = {(index, 0): self._new_way(index) for index in range(self._count())}
        self._buffers.largest = self._largest()
        self._places = Places(graph, engine, self._feeds_back(), self._buffers)
        for (profile, turn), way in self._ways.items():
            way.bind(self._places.of(turn, self._is_step(profile)))
        owned.callback(self._forget)
        self._cache = FixedCache(graph.cache) if graph.cache else None
        self.reset()

    def reset(self, held: Tensors | None = None) -> None:
        self._running()
        tensors = self._hold(held or {})
        places = self._places.of(0, step=False)
        for name, tensor in tensors.items():
            self._cuda.to_device(places[name], tensor.ctypes.data, tensor.nbytes, self._stream)
        for address, size in self._places.cache:
            self._cuda.zero(address, size, self._stream)
        self._cuda.synchronize(self._stream)
        self._held = {name: tensor.shape for name, tensor in tensors.items()}
        self._turn = 0
        self._said: int | None = None
        if self._cache:
            self._cache.reset()

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        self._running()
        tensors, names = self._inputs.check(feeds), chosen(self._graph, outputs)
        sizes = self._inputs.sizes(tensors)
        profile, length = self._profile(sizes), sizes.get("length", 1)
        tensors |= self._cache.steer(length) if self._cache else {}
        tensors = {name: self._converted(name, tensor) for name, tensor in tensors.items()}
        step = self._is_step(profile)
        way, places = self._way(profile), self._places.of(self._turn, step)
        way.set_shapes(self._held | {name: tensor.shape for name, tensor in tensors.items()})
        for name, tensor in tensors.items():
            if not self._is_there(name, tensor, step):
                self._buffers.upload(name, tensor, places[name])
        recordable = way.run(self._record and step)
        self._record = self._record and recordable
        types = self._edges.dtypes
        found = {name: self._buffers.download(name, places[name], way.shape(name), types[name]) for name in names}
        self._cuda.synchronize(self._stream)
        self._advance(length, found)
        return {port.name: found[port.name].astype(port.dtype) for port in self._graph.outputs if port.name in found}

    def close(self) -> None:
        self._engine = None
        self._owned.close()

    def _hold(self, held: Tensors) -> Tensors:
        """What is to be held, as the engine has it; after a refusal nothing is."""
        try:
            tensors = self._inputs.hold(held)
            self._profile(self._inputs.sizes({}))
            return {name: self._converted(name, tensor) for name, tensor in tensors.items()}
        except InputError:
            self._inputs.hold({})
            self._held = {}
            raise

    def _advance(self, length: int, found: Tensors) -> None:
        """What was written is what the next run reads."""
        if self._cache:
            self._cache.advance(length)
            self._turn = 1 - self._turn
        self._said = int(found[TOKEN_OUT][0, -1]) if self._feeds_back() and TOKEN_OUT in found else None

    def _is_there(self, name: str, tensor: np.ndarray, step: bool) -> bool:
        """Whether it is the token that the last run told: it lies where a step of one token reads it."""
        return step and name == TOKEN_IN and self._said is not None and tensor.item() == self._said

    def _feeds_back(self) -> bool:
        """Whether the token that comes out is what can go in."""
        ports = {port.name: port.shape for port in (*self._graph.inputs, *self._graph.outputs)}
        types = self._edges.dtypes
        fits = ports.get(TOKEN_IN) == (1, "length") and ports.get(TOKEN_OUT) == (1, 1)
        return bool(self._graph.cache) and fits and types[TOKEN_IN] == types[TOKEN_OUT]

    def _is_step(self, profile: int) -> bool:
        """Whether the profile is for runs of one token only."""
        return bool(self._graph.cache) and self._profiles[profile]["length"].largest == 1

    def _profile(self, sizes: dict[str, int]) -> int:
        """The first profile that fits; sizes that are not known yet fit.

        Raises:
            InputError: there is none.
        """
        for index, spans in enumerate(self._profiles):
            if all(span.smallest <= sizes.get(word, span.usual) <= span.largest for word, span in spans.items()):
                return index
        if not self._profiles:
            return 0
        given = ", ".join(f"{word} {size}" for word, size in sizes.items())
        built = " or ".join(map(spell, self._profiles))
        raise InputError(
            f"`{self._graph.component}` was built for {built}, not for {given}", hint="export it for larger sizes"
        )

    def _way(self, profile: int) -> Way:
        """The context for this profile in this turn, made when it is first needed."""
        key = profile, self._turn
        if key not in self._ways:
            self._ways[key] = self._new_way(profile)
            self._ways[key].bind(self._places.of(self._turn, self._is_step(profile)))
        return self._ways[key]

    def _new_way(self, profile: int) -> Way:
        return Way(self._engine, profile, self._scratch, self._cuda, self._stream, self._graph.component)

    def _count(self) -> int:
        """Profiles of the engine."""
        found, promised = self._engine.num_optimization_profiles, max(len(self._profiles), 1)
        if found != promised:
            raise BackendError(
                f"the engine of `{self._graph.component}` has {found} profiles, the bundle says {promised}",
                hint="compile the bundle again",
            )
        return promised

    def _largest(self) -> dict[str, int]:
        """Bytes of every input and output at their largest, over all profiles."""
        largest: dict[str, int] = {}
        for (profile, _), way in self._ways.items():
            shapes = {name: self._largest_shape(name, profile) for name in self._edges.inputs}
            way.set_shapes(shapes)
            shapes |= {name: way.shape(name) for name in self._edges.outputs}
            for name, shape in shapes.items():
                size = int(np.prod(shape)) * self._edges.dtypes[name].itemsize
                largest[name] = max(largest.get(name, 0), size)
        return largest

    def _largest_shape(self, name: str, profile: int) -> tuple[int, ...]:
        shape = tuple(self._engine.get_tensor_shape(name))
        return tuple(self._engine.get_tensor_profile_shape(name, profile)[2]) if -1 in shape else shape

    def _converted(self, name: str, tensor: np.ndarray) -> np.ndarray:
        """As the engine has it: what TensorRT before 10 takes as int32 instead of int64 must fit.

        Raises:
            InputError: it does not.
        """
        dtype = self._edges.dtypes[name]
        if tensor.dtype == dtype:
            return tensor
        bounds = np.iinfo(dtype)
        if tensor.size and not bounds.min <= tensor.min() <= tensor.max() <= bounds.max:
            raise InputError(f"input `{name}` of `{self._graph.component}` has a value that is no {dtype}")
        return tensor.astype(dtype)

    def _forget(self) -> None:
        """Contexts go before the engine, recordings before the memory that they use."""
        for way in self._ways.values():
            way.forget()
        self._ways.clear()

    def _running(self) -> Any:
        if self._engine is None:
            raise closed(self._graph.component)
        return self._engine
