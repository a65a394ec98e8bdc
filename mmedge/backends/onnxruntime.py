"""ONNX Runtime on the CPU: the reference that the other engines are compared with.

It reads ONNX as it is, and nothing is kept of what it makes of it. Measured on two Zen 4 cores with onnxruntime 1.31, a
saved optimized graph would open in the same time and memory where weights are spelled as MatMulNBits, and less than a
fifth faster where they are float32 or static int8. It would pay for weights spelled as `DequantizeLinear -> MatMul`
(0.3 instead of 0.9 s, 230 instead of 300 MB for a decoder of 137 million parameters), which is how they are written
for other engines. The engine can also keep its packed weights in that file
(`session.save_external_prepacked_constant_initializers`), but int8 decoders then return NaN.

The CPU memory arena is off: it keeps every size that a growing cache ever asked for, and is no faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.backends._cache import HostCache
from mmedge.backends._engine import check_edges, chosen, closed, told_as_ours
from mmedge.backends._inputs import Inputs
from mmedge.core.backend import NO_OPTIONS, Options
from mmedge.core.machine import usable_cores
from mmedge.core.manifest import Graph
from mmedge.core.ports import CacheShape, Port, Tensors
from mmedge.needs import needs

if TYPE_CHECKING:
    from mmedge.backends._onnxruntime_profile import PlainOnnxRuntime, ProfiledOnnxRuntime

ROOM = 256
"""Tokens that a shared cache has room for beyond the prompt at first."""

_SILENT = 4
"""Log severity "fatal": what goes wrong is raised, and then told once."""


class OnnxRuntime:
    """Runs ONNX files; the cache of a decoder stays in ONNX Runtime's own tensors."""

    name = "onnxruntime"
    device = "cpu"
    """Where the cache and what is held stay, as ONNX Runtime calls it."""

    def version(self) -> str:
        return str(_library().__version__)

    def tied_to(self) -> dict[str, str]:
        return {}

    def compiles(self, graph: Graph) -> bool:
        return False

    def compile(self, graph: Graph, source: Path, output: Path, options: Options = NO_OPTIONS) -> Path:
        return source

    def open(self, graph: Graph, artifact: Path, threads: int = 0, options: Options = NO_OPTIONS) -> OnnxRuntimeSession:
        settings = _settings(graph, threads)
        with told_as_ours(f"onnxruntime cannot open `{graph.component}`", _exceptions()):
            engine = _library().InferenceSession(artifact, settings, providers=self.providers())
        check_edges(graph, _names(engine.get_inputs()), _names(engine.get_outputs()))
        return OnnxRuntimeSession(graph, engine, self.device)

    def open_profiled(
        self, graph: Graph, source: Path, threads: int = 0, options: Options = NO_OPTIONS
    ) -> ProfiledOnnxRuntime:
        from mmedge.backends._onnxruntime_profile import open_profiled  # needs this module

        return open_profiled(graph, source, _settings(graph, threads), self.providers(), self.device)

    def open_plain(self, graph: Graph, source: Path) -> PlainOnnxRuntime:
        """On the CPU, with every node of the file run as it is written, which tells shapes; slow."""
        from mmedge.backends._onnxruntime_profile import open_plain

        return open_plain(graph, source, _settings(graph, threads=0))

    def open_showing(self, graph: Graph, source: Path, outputs: Sequence[str]) -> OnnxRuntimeSession:
        """On the CPU, with tensors from inside the graph among its outputs."""
        from mmedge.backends._onnxruntime_profile import open_showing

        return open_showing(graph, source, _settings(graph, threads=0), outputs)

    def providers(self) -> list[str]:
        """Who computes, as ONNX Runtime calls them, the first choice first."""
        return ["CPUExecutionProvider"]


class OnnxRuntimeSession:
    """An open graph; one binding remembers what is held, where the cache is, and buffers for what comes in and out.

    Binding costs more Python than a step of a small decoder can bear (0.2 of 7 ms): of graphs that run once a token, on
    the CPU, what has the shape of the run before is copied to where that was bound, and what has a known shape is
    written to where it was.
    """

    def __init__(self, graph: Graph, engine: Any, device: str = "cpu") -> None:
        self._graph = graph
        self._engine = engine
        self._device = device
        self._inputs = Inputs(graph)
        self._outputs = {port.name: port for port in graph.outputs}
        self._stays_bound = device == "cpu" and graph.role == "decode"
        self._cache = _cache(graph, device)
        self.reset()

    def reset(self, held: Tensors | None = None) -> None:
        tensors = self._inputs.hold(held or {})
        self._binding = self._running().io_binding()
        self._fed: Tensors = {}
        self._made: Tensors = {}
        self._asked: tuple[str, ...] = ()
        self._held = {name: _value(tensor, self._device) for name, tensor in tensors.items()}
        for name, tensor in self._held.items():
            self._binding.bind_ortvalue_input(name, tensor)
        if self._cache:
            self._cache.reset()

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        engine, tensors, names = self._running(), self._inputs.check(feeds), chosen(self._graph, outputs)
        sizes = self._inputs.sizes(tensors)
        length = sizes["length"] if self._cache else 0
        for name, tensor in (tensors | (self._cache.steer(length) if self._cache else {})).items():
            self._feed(name, tensor)
        if names != self._asked:
            self._binding.clear_binding_outputs()  # what is not asked for is not computed
            self._asked, self._made = names, {}
            if isinstance(self._cache, _Shared):
                self._cache.bind_anew()
        for name in names:
            self._await(self._outputs[name], sizes)
        if self._cache:
            self._cache.bind(self._binding, length)
        with told_as_ours(f"onnxruntime cannot run `{self._graph.component}`", _exceptions()):
            engine.run_with_iobinding(self._binding)
        return self._taken(names, length)

    def _feed(self, name: str, tensor: np.ndarray) -> None:
        fed = self._fed.get(name)
        if fed is not None and fed.shape == tensor.shape:
            np.copyto(fed, tensor)
            return
        self._fed.pop(name, None)
        if not (self._stays_bound and tensor.size):
            self._binding.bind_cpu_input(name, tensor)
            return
        fed = tensor.copy()
        self._binding.bind_ortvalue_input(name, _value(fed, self._device))
        self._fed[name] = fed

    def _await(self, port: Port, sizes: dict[str, int]) -> None:
        shape = tuple(size if isinstance(size, int) else sizes.get(size, -1) for size in port.shape)
        made = self._made.get(port.name)
        if made is not None and made.shape == shape:
            return
        self._made.pop(port.name, None)
        if not self._stays_bound or min(shape, default=1) < 1:
            self._binding.bind_output(port.name)  # allocated anew at every run
            return
        made = np.empty(shape, port.dtype)
        self._binding.bind_ortvalue_output(port.name, _value(made, self._device))
        self._made[port.name] = made

    def _taken(self, names: tuple[str, ...], length: int) -> Tensors:
        """What was asked for; the cache takes its own."""
        taken = {name: made.copy() for name, made in self._made.items()}
        if len(taken) < len(names) or isinstance(self._cache, _Growing):
            values = self._binding.get_outputs()
            taken |= {name: values[place].numpy() for place, name in enumerate(names) if name not in taken}
        if self._cache:
            self._cache.take(values[len(names) :] if isinstance(self._cache, _Growing) else [], length)
        return {name: taken[name] for name in names}

    def keep(self, length: int) -> bool:
        """Forget all but the first ``length`` tokens, where the cache is shared with its attention."""
        if not isinstance(self._cache, _Shared):
            return False
        self._cache.keep(length)
        return True

    def select(self, begin: int, end: int) -> bool:
        """Read and write these rows of the cache, for as many answers at once; False where it has but one."""
        if not isinstance(self._cache, _Shared):
            return False
        self._cache.select(begin, end)
        return True

    def move(self, old: int, new: int) -> None:
        """Put what row ``old`` of the cache holds in place of row ``new``."""
        assert isinstance(self._cache, _Shared)
        self._cache.move(old, new)

    def providers(self) -> list[str]:
        """Who computes, as ONNX Runtime says after opening."""
        return [str(name) for name in self._running().get_providers()]

    def close(self) -> None:
        self._engine = self._binding = self._cache = None
        self._held = {}

    def _running(self) -> Any:
        if self._engine is None:
            raise closed(self._graph.component)
        return self._engine


class _Growing:
    """A cache whose ``present.*`` outputs of a run are bound as the ``past.*`` inputs of the next."""

    def __init__(self, shape: CacheShape, device: str) -> None:
        self._ports = shape.past()
        self._present = tuple(port.name for port in shape.present())
        self._device = device

    def reset(self) -> None:
        self._past = [_empty(port, self._device) for port in self._ports]

    def steer(self, length: int) -> Tensors:
        return {}

    def bind(self, binding: Any, length: int) -> None:
        for port, past in zip(self._ports, self._past, strict=True):
            binding.bind_ortvalue_input(port.name, past)
        for name in self._present:
            binding.bind_output(name, self._device)

    def take(self, values: list[Any], length: int) -> None:
        self._past = values


class _Shared:
    """A cache that attention writes in place: the same buffers are ``past.*`` and ``present.*``.

    They have a row for each of several answers, of which the ``selected`` are read and written; at first one. They
    begin with room for `ROOM` tokens beyond the first that are read, and grow by half when they are full.
    """

    def __init__(self, shape: CacheShape, device: str) -> None:
        self._shape = shape
        self._names = [(past.name, present.name) for past, present in zip(shape.past(), shape.present(), strict=True)]
        self._device = device
        self._buffers: list[np.ndarray] = []
        self._slots = 0
        self.reset()

    def reset(self) -> None:
        self._used = np.zeros(1, np.int32)
        self._selected = slice(0, 1)
        self._bound: Any = None

    def keep(self, length: int) -> None:
        used = self._used[self._selected]
        np.minimum(used, length, out=used)

    def select(self, begin: int, end: int) -> None:
        """Read and write these rows; new ones are empty."""
        if end > len(self._used):
            self._used = np.concatenate([self._used, np.zeros(end - len(self._used), np.int32)])
        self._selected = slice(begin, end)
        self.bind_anew()

    def bind_anew(self) -> None:
        """At the next run: other rows are selected, or the binding has forgotten its outputs."""
        self._bound = None

    def move(self, old: int, new: int) -> None:
        """Put what row ``old`` holds in place of row ``new``."""
        used = self._used[old]
        for buffer in self._buffers:
            buffer[new, :, :used] = buffer[old, :, :used]
        self._used[new] = used

    def steer(self, length: int) -> Tensors:
        last = self._used[self._selected] + np.int32(length - 1)
        return {"seqlens_k": last, "total_sequence_length": np.array(last.max() + 1, np.int32)}

    def bind(self, binding: Any, length: int) -> None:
        needed = int(self._used[self._selected].max()) + length
        if needed > self._slots or len(self._used) > len(self._buffers[0]):
            self._grow(needed)
        elif self._bound is binding:
            return
        for (past, present), buffer in zip(self._names, self._buffers, strict=True):
            value = _value(buffer[self._selected], self._device)
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)
        self._bound = binding

    def _grow(self, needed: int) -> None:
        if needed > self._slots:
            self._slots = -(-max(needed + ROOM, self._slots * 3 // 2) // ROOM) * ROOM
        size = (len(self._used), self._shape.heads, self._slots, self._shape.head_dim)
        grown = [np.empty(size, self._shape.dtype) for _ in self._names]
        for new, old in zip(grown, self._buffers, strict=False):
            held = int(self._used.max())
            new[: len(old), :, :held] = old[:, :, :held]
        self._buffers = grown

    def take(self, values: list[Any], length: int) -> None:
        self._used[self._selected] += length


class _Fixed(HostCache):
    """A cache of fixed length: ONNX Runtime reads one set of its buffers and writes the other, in turn."""

    def __init__(self, shape: CacheShape, device: str) -> None:
        super().__init__(shape)
        self._device = device

    def reset(self) -> None:
        super().reset()
        sets = [[_value(buffer, self._device) for buffer in buffers] for buffers in self._sets]
        self._values = sets  # on the CPU these are the buffers themselves, on a GPU copies of their zeros

    def bind(self, binding: Any, length: int) -> None:
        reads, writes = self._values[self._turn], self._values[1 - self._turn]
        for (past, present), read, written in zip(self._pairs, reads, writes, strict=True):
            binding.bind_ortvalue_input(past, read)
            binding.bind_ortvalue_output(present, written)

    def take(self, values: list[Any], length: int) -> None:
        self.advance(length)


def _cache(graph: Graph, device: str) -> _Growing | _Shared | _Fixed | None:
    if graph.cache is None:
        return None
    if graph.cache.shared:
        return _Shared(graph.cache, device)
    return _Fixed(graph.cache, device) if graph.cache.capacity else _Growing(graph.cache, device)


def _value(tensor: np.ndarray, device: str) -> Any:
    """The tensor as ONNX Runtime knows it: on the CPU not copied."""
    return _library().OrtValue.ortvalue_from_numpy(tensor, device)


def _empty(port: Port, device: str) -> Any:
    """A growing cache that nothing was put into yet."""
    shape = [0 if size == "past" else size for size in port.shape]
    return _library().OrtValue.ortvalue_from_shape_and_type(shape, port.dtype, device)


def _settings(graph: Graph, threads: int) -> Any:
    options = _library().SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.enable_cpu_mem_arena = False
    options.log_severity_level = _SILENT
    if graph.precision.endswith("-weights") and _version() < (1, 25):
        # These versions have no kernel for `DequantizeLinear -> MatMul` of 8 bits: they would dequantize all weights
        # anew at every token, many times slower than undoing the quantization once.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in _library().__version__.split(".")[:2])


def _names(edges: Iterable[Any]) -> tuple[str, ...]:
    return tuple(edge.name for edge in edges)


@cache
def _exceptions() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions have no common base."""
    own = (
        kind
        for kind in vars(_library().capi.onnxruntime_pybind11_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    )
    return (*own, RuntimeError)


@cache
def _library() -> Any:
    with needs("onnxruntime"):
        import onnxruntime
    return onnxruntime


BACKEND = OnnxRuntime()
