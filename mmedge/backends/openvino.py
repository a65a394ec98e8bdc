"""OpenVINO on the CPU: a graph is compiled for this processor, and a decoder's cache becomes state inside it.

Arithmetic is float32 throughout, the cache included, so that a float32 graph gives the tokens of torch. Two exceptions,
measured on one Zen 4 core with openvino 2026.4.1 (CPU time, interleaved; a vision tower at 384 pixels, a decoder of
137 million parameters):

- what static int8 leaves in floating point runs in bfloat16 where the processor has it: 421 instead of 513 ms, the
  cosine to the float32 tower 0.99952 instead of 0.99956. A decoder gains nothing by it.
- weight-only int8 computes with float32 activations, instead of quantizing them at every step: 15.9 instead of 17.8 ms
  a token, the cosine of its logits 0.99997 instead of 0.99990. For int4 it is the other way round: 14.0 and 10.9 ms.

The artifact is the compiled model, not the IR: a static int8 tower opens in 0.6 s of CPU time instead of 1.4 s, a
weight-only int8 decoder in 0.2 s instead of 0.6 s. Two kinds of decoders it writes so that it cannot read them again
(openvino 2026.4.1), and there the artifact is the IR: on Arm any, as it does not know its own operation for attention
with state; and those that rotate queries and keys, which then come out as random numbers.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from mmap import ACCESS_COPY, MADV_DONTNEED, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.backends._cache import HostCache
from mmedge.backends._engine import check_edges, chosen, closed, told_as_ours
from mmedge.backends._inputs import Inputs
from mmedge.core.backend import NO_OPTIONS, Options
from mmedge.core.machine import usable_cores
from mmedge.core.manifest import Graph
from mmedge.core.onnx_graph import read_graph
from mmedge.core.ports import CacheShape, Tensors
from mmedge.needs import needs

if TYPE_CHECKING:
    from mmedge.backends._openvino_profile import ProfiledOpenVino

_BEAM = "beam_idx"
_MODEL = ".xml"


class OpenVino:
    """Opens what it compiled for this processor; the cache of a decoder is kept by OpenVINO inside the model."""

    name = "openvino"

    def version(self) -> str:
        return str(_library().get_version())

    def tied_to(self) -> dict[str, str]:
        return {}

    def compiles(self, graph: Graph) -> bool:
        return True

    def compile(self, graph: Graph, source: Path, output: Path, options: Options = NO_OPTIONS) -> Path:
        stateful = bool(graph.cache and not graph.cache.capacity)
        with told_as_ours(f"openvino cannot compile `{graph.component}`", _exceptions()):
            model = _prepared(graph, source)
            comes_back = not (stateful and not _reads_state_back()) and not _rotates(source)
            artifact = output / f"{graph.component}{'.blob' if comes_back else _MODEL}"
            if artifact.suffix == _MODEL:
                _library().serialize(model, artifact)
                return artifact
            blob = _core().compile_model(model, "CPU", _settings(graph, threads=0)).export_model()
        artifact.write_bytes(blob.getbuffer())
        return artifact

    def open(self, graph: Graph, artifact: Path, threads: int = 0, options: Options = NO_OPTIONS) -> OpenVinoSession:
        with told_as_ours(f"openvino cannot open `{graph.component}`", (*_exceptions(), ValueError, OSError)):
            if artifact.suffix == _MODEL:
                compiled = _core().compile_model(_core().read_model(artifact), "CPU", _settings(graph, threads))
                return OpenVinoSession(graph, compiled.create_infer_request())
            with artifact.open("rb") as file:
                pages = mmap(file.fileno(), 0, access=ACCESS_COPY)  # a tensor must be writable
            blob = _library().Tensor(np.frombuffer(pages, np.uint8), shared_memory=True)
            compiled = _core().import_model(blob, "CPU", _settings(graph, threads))
            with suppress(OSError):  # pages that are locked into memory stay there
                pages.madvise(MADV_DONTNEED)  # nearly all was packed anew; what is read again comes from the file
            return OpenVinoSession(graph, compiled.create_infer_request(), pages)

    def open_profiled(
        self, graph: Graph, source: Path, threads: int = 0, options: Options = NO_OPTIONS
    ) -> ProfiledOpenVino:
        from mmedge.backends import _openvino_profile  # needs this module

        names = frozenset(node.name for node in read_graph(source.read_bytes()).nodes)
        with told_as_ours(f"openvino cannot compile `{graph.component}`", _exceptions()):
            settings = {**_settings(graph, threads), _openvino_profile.SETTING: True}
            compiled = _core().compile_model(_prepared(graph, source), "CPU", settings)
            return _openvino_profile.ProfiledOpenVino(graph, compiled, names)


class OpenVinoSession:
    """An open graph; one request that remembers inputs and state."""

    def __init__(self, graph: Graph, request: Any, file: mmap | None = None) -> None:
        self._graph = graph
        self._request = request
        self._file = file  # the engine reads weights from it as long as it lives
        self._inputs = Inputs(graph)
        self._fixed = HostCache(graph.cache) if graph.cache and graph.cache.capacity else None
        if graph.cache and not self._fixed:
            request.set_tensor(_BEAM, _library().Tensor(np.zeros(1, np.int32)))
        self.reset()

    def reset(self, held: Tensors | None = None) -> None:
        request, self._held = self._running(), self._inputs.hold(held or {})
        self._set(self._held)
        if self._fixed:
            self._fixed.reset()
        elif self._graph.cache:
            request.reset_state()

    def run(self, feeds: Tensors, outputs: Sequence[str] | None = None) -> Tensors:
        request, tensors, names = self._running(), self._inputs.check(feeds), chosen(self._graph, outputs)
        if self._fixed:
            length = self._inputs.sizes(tensors)["length"]
            tensors |= self._fixed.steer(length) | self._fixed.past() | self._fixed.present()
        self._set(tensors)
        with told_as_ours(f"openvino cannot run `{self._graph.component}`", _exceptions()):
            request.infer(share_outputs=True)
        if self._fixed:
            self._fixed.advance(length)
        return {name: request.get_tensor(name).data.copy() for name in names}

    def close(self) -> None:
        self._request, self._held, self._file, self._fixed = None, {}, None, None

    def _set(self, tensors: Tensors) -> None:
        tensor_of = _library().Tensor
        for name, tensor in tensors.items():
            self._request.set_tensor(name, tensor_of(tensor, shared_memory=True))

    def _running(self) -> Any:
        if self._request is None:
            raise closed(self._graph.component)
        return self._request


def _settings(graph: Graph, threads: int) -> dict[str, str | int]:
    """See the docstring of this module for the reasons."""
    int8 = graph.precision == "int8" and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    settings: dict[str, str | int] = {
        "INFERENCE_PRECISION_HINT": "bf16" if int8 else "f32",
        "KV_CACHE_PRECISION": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads or usable_cores(),
    }
    if graph.precision == "int8-weights":
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = 0
    return settings


def _read(source: Path) -> Any:
    """As ONNX and nothing else: `read_model` tries every format that it knows, and some of its readers print."""
    reader = _library().frontend.FrontEndManager().load_by_framework("onnx")
    return reader.convert(reader.load(str(source)))


def _prepared(graph: Graph, source: Path) -> Any:
    """The model of an ONNX file as it is compiled."""
    model = _read(source)
    check_edges(graph, _names(model.inputs), _names(model.outputs))
    if graph.cache and not graph.cache.capacity:
        _split_unmasked_attention(model)
        _broadcast_shared_heads(model)
        _keep_cache_inside(model, graph.cache)
    return model


def _names(edges: Iterable[Any]) -> tuple[str, ...]:
    return tuple(edge.get_any_name() for edge in edges)


def _keep_cache_inside(model: Any, shape: CacheShape) -> None:
    """Turn the pairs ``past.*`` and ``present.*`` into state.

    OpenVINO joins attention and state in one operation only if each past is picked by ``beam_idx`` first.
    """
    openvino = _library()
    from openvino import passes  # after the library, which is imported without its telemetry

    op = openvino.opset15
    beam = op.parameter([-1], np.int32, name=_BEAM)
    beam.output(0).get_tensor().set_names({_BEAM})
    for port in shape.past():
        past = model.input(port.name).get_node()
        readers = past.output(0).get_target_inputs()
        past.set_partial_shape(openvino.PartialShape([-1, shape.heads, -1, shape.head_dim]))
        picked = op.gather(past, beam, op.constant(0, np.int32))
        for reader in readers:
            reader.replace_source_output(picked.output(0))
    model.add_parameters([beam])
    pairs = zip(shape.past(), shape.present(), strict=True)
    stateful = passes.Manager()
    stateful.register_pass(passes.MakeStateful({past.name: present.name for past, present in pairs}))
    stateful.run_passes(model)
    empty = op.constant(np.zeros((1, shape.heads, 0, shape.head_dim), shape.dtype))
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([empty])
    model.validate_nodes_and_infer_types()


def _split_unmasked_attention(model: Any) -> None:
    """Spell attention without a mask as two matrix products.

    That is what becomes of it inside OpenVINO anyway, as it has no state; but OpenVINO then transposes and scales all
    keys at every step (577 picture positions in 12 layers: a fifth of an int8 step), here only the query is scaled.
    """
    op = _library().opset15
    for node in model.get_ops():
        if node.get_type_name() != "ScaledDotProductAttention" or not _is_unmasked(node):
            continue
        query, key, value = (node.input_value(index) for index in range(3))
        scale = node.input_value(4) if node.get_input_size() > 4 else _default_scale(query)
        scores = op.matmul(op.multiply(query, scale), key, transpose_a=False, transpose_b=True)
        context = op.matmul(op.softmax(scores, -1), value, transpose_a=False, transpose_b=False)
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(context.output(0))
        context.set_friendly_name(node.get_friendly_name())


def _broadcast_shared_heads(model: Any) -> None:
    """Repeat keys and values that several heads share by Broadcast instead of the Tile that the reader of ONNX writes.

    OpenVINO looks for the former alone when it joins attention and state: with the latter a step of SmolVLM-256M takes
    twice as long.
    """
    op = _library().opset15
    for node in model.get_ops():
        if node.get_type_name() != "Tile" or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        times = node.input_value(1).get_node().get_data().astype(np.int64)
        sizes = node.input_value(0).get_partial_shape()
        if sizes.rank != len(times):
            continue
        if all(many == 1 or size == 1 for many, size in zip(times, sizes, strict=True)):
            wide = op.broadcast(node.input_value(0), op.constant(times), broadcast_spec="BIDIRECTIONAL")
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(wide.output(0))
            wide.set_friendly_name(node.get_friendly_name())


def _is_unmasked(attention: Any) -> bool:
    """The reader of ONNX puts a single zero where there is no mask."""
    if attention.get_attributes()["causal"]:
        return False
    return bool(attention.get_input_size() < 4 or attention.input(3).get_partial_shape() == _library().PartialShape([]))


def _default_scale(query: Any) -> Any:
    head_dim = query.get_partial_shape()[-1].get_length()
    return _library().opset15.constant(np.array(head_dim**-0.5, query.get_element_type().to_dtype()))


def _rotates(source: Path) -> bool:
    return any(node.op == "RotaryEmbedding" for node in read_graph(source.read_bytes()).nodes)


def _reads_state_back() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


@cache
def _exceptions() -> tuple[type[Exception], ...]:
    """The core raises RuntimeError, the reader of ONNX has its own."""
    own = (
        kind for kind in vars(_library().frontend).values() if isinstance(kind, type) and issubclass(kind, Exception)
    )
    return (*own, RuntimeError)


@cache
def _core() -> Any:
    """One for the process: each would load its own plugins."""
    return _library().Core()


@cache
def _library() -> Any:
    with needs("openvino"), without_telemetry():
        import openvino
    return openvino


@contextmanager
def without_telemetry() -> Iterator[None]:
    """Hide the package that OpenVINO reports to its makers with, as if it were not installed.

    ``import openvino`` alone starts a process that sends an event over the network.
    """
    name = "openvino_telemetry"
    absent = name not in sys.modules
    installed = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[name]
        else:
            sys.modules[name] = installed  # type: ignore[assignment]


BACKEND = OpenVino()
