"""What ONNX Runtime tells of its nodes: the time of each while it runs fused, the shapes of all tensors without that.

The engine writes events as a Chrome trace, and names a node that it made by fusion after its operator. So it is also
made to write the graph that it runs (the order of nodes there is that of the events), and a node stands for all nodes
of the original graph that lie between its inputs and its outputs. The weights of that second graph go to /dev/null.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mmedge.backends._engine import told_as_ours
from mmedge.backends.onnxruntime import OnnxRuntimeSession, _exceptions, _library
from mmedge.core.backend import NodeTime
from mmedge.core.manifest import Graph
from mmedge.core.onnx_graph import Node, OnnxGraph, Tensor, read_graph, with_outputs
from mmedge.core.ports import Port
from mmedge.errors import BackendError

_RUN, _KERNEL = "model_run", "_kernel_time"
_TYPES = {"float": "float32", "double": "float64"}
"""Types that the trace calls otherwise than everyone else."""

Typed = dict[str, tuple[int, ...]]


class Details(Struct, frozen=True):
    """Of an event: a shape by type for every tensor."""

    op_name: str = ""
    output_type_shape: list[Typed] = []


class Event(Struct, frozen=True):
    """A line of the trace; microseconds."""

    name: str
    cat: str
    ts: int
    dur: int = 0
    args: Details = Details()


class TracedOnnxRuntime(OnnxRuntimeSession):
    """A session whose engine writes a trace into a folder that goes when it is closed."""

    def __init__(self, graph: Graph, engine: Any, device: str, folder: TemporaryDirectory[str]) -> None:
        self._folder = folder
        self._traced = True
        super().__init__(graph, engine, device)

    def close(self) -> None:
        if self._traced and self._engine is not None:
            self.trace()
        super().close()
        self._folder.cleanup()

    def trace(self) -> list[list[Event]]:
        """The events of all nodes, run by run, in the order in which they began. Ends the trace."""
        path = Path(self._running().end_profiling())
        self._traced = False
        try:
            return list(runs_of(path.read_bytes()))
        except (OSError, msgspec.DecodeError) as error:
            raise BackendError(
                f"what onnxruntime tells of `{self._graph.component}` cannot be read: {error}"
            ) from error


class ProfiledOnnxRuntime(TracedOnnxRuntime):
    """Runs what other sessions run, and counts."""

    names: list[tuple[str, ...]]
    """Of the nodes that are run, in order: those of the original graph."""

    def node_times(self) -> tuple[tuple[NodeTime, ...], ...]:
        runs = self.trace()
        for run in runs:
            if len(run) != len(self.names):
                raise BackendError(
                    f"onnxruntime ran {len(run)} nodes of `{self._graph.component}`, its graph has {len(self.names)}",
                    hint="graphs with loops and branches cannot be told node by node",
                )
        return tuple(tuple(map(_timed, run, self.names)) for run in runs)


class PlainOnnxRuntime(TracedOnnxRuntime):
    """Runs the nodes of the file one by one."""

    def shapes(self) -> list[dict[str, tuple[Tensor, ...]]]:
        """Type and shape of what each node made, by its name, run by run. To be asked once, at the end."""
        return [
            {_name(event): tuple(map(_tensor, event.args.output_type_shape)) for event in run} for run in self.trace()
        ]


def open_profiled(graph: Graph, source: Path, settings: Any, providers: list[str], device: str) -> ProfiledOnnxRuntime:
    """See `core.backend.Profiling`."""
    folder = TemporaryDirectory(prefix="mmedge-profile-")
    executed = Path(folder.name, "executed.onnx")
    os.symlink(os.devnull, executed.with_suffix(".data"))
    settings.optimized_model_filepath = str(executed)
    for key, value in (("file_name", "executed.data"), ("min_size_in_bytes", "1024")):
        settings.add_session_config_entry(f"session.optimized_model_external_initializers_{key}", value)
    engine = _open(graph, str(source), settings, providers, folder)
    session = ProfiledOnnxRuntime(graph, engine, device, folder)
    session.names = list(original_names(read_graph(source.read_bytes()), read_graph(executed.read_bytes())))
    return session


def open_plain(graph: Graph, source: Path, settings: Any) -> PlainOnnxRuntime:
    """See `onnxruntime.OnnxRuntime.open_plain`."""
    folder = TemporaryDirectory(prefix="mmedge-profile-")
    settings.graph_optimization_level = _library().GraphOptimizationLevel.ORT_DISABLE_ALL
    engine = _open(graph, str(source), settings, ["CPUExecutionProvider"], folder)
    return PlainOnnxRuntime(graph, engine, "cpu", folder)


def open_showing(graph: Graph, source: Path, settings: Any, outputs: Sequence[str]) -> OnnxRuntimeSession:
    """See `onnxruntime.OnnxRuntime.open_showing`."""
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(source.parent))
    known = {port.name for port in graph.outputs}
    further = [name for name in outputs if name not in known]
    with told_as_ours(f"onnxruntime cannot open `{graph.component}`", _exceptions()):
        model = with_outputs(source.read_bytes(), further)
        engine = _library().InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    ports = tuple(Port(name, "", ("unknown",)) for name in further)  # so that the engine makes room for them
    return OnnxRuntimeSession(replace(graph, outputs=(*graph.outputs, *ports)), engine)


def original_names(original: OnnxGraph, executed: OnnxGraph) -> Iterator[tuple[str, ...]]:
    """For every node that is run, the original ones that lie between its inputs and its outputs.

    One whose outputs the original does not know, because their layout was changed, stands with the one that reads them.
    """
    makers = original.makers()
    named = {node.name for node in executed.nodes}
    computed = {name for node in executed.nodes for name in node.outputs}
    computed |= {name for node in original.nodes if node.name in named for name in node.outputs}
    order = {node.name: place for place, node in enumerate(original.nodes)}
    found: dict[str, tuple[str, ...]] = {}
    for node in reversed(executed.nodes):
        names = _between(node, makers, computed) or {node.name} & order.keys()
        names = names or {name for reader in _readers(node, executed) for name in found[reader.outputs[0]]}
        found[node.outputs[0]] = tuple(sorted(names, key=order.__getitem__))
    return (found[node.outputs[0]] for node in executed.nodes)


def runs_of(trace: bytes) -> Iterator[list[Event]]:
    """Events of nodes, one list for each run."""
    events = msgspec.json.decode(trace, type=list[Event])
    kernels = sorted((event for event in events if event.name.endswith(_KERNEL)), key=lambda event: event.ts)
    position = 0
    for run in sorted((event for event in events if event.name == _RUN), key=lambda event: event.ts):
        first = position
        while position < len(kernels) and kernels[position].ts <= run.ts + run.dur:
            position += 1
        yield kernels[first:position]


def _between(node: Node, makers: dict[str, Node], computed: set[str]) -> set[str]:
    names: set[str] = set()
    waiting = [name for name in node.outputs if name in makers]
    while waiting:
        maker = makers[waiting.pop()]
        if maker.name not in names:
            names.add(maker.name)
            before = [name for name in maker.inputs if name in makers]
            waiting += [name for name in before if name not in computed or makers[name].name == node.name]
    return names


def _readers(node: Node, graph: OnnxGraph) -> Iterable[Node]:
    return (reader for reader in graph.nodes if set(node.outputs) & set(reader.inputs))


def _open(graph: Graph, model: str, settings: Any, providers: list[str], folder: TemporaryDirectory[str]) -> Any:
    settings.enable_profiling = True
    settings.profile_file_prefix = str(Path(folder.name, "trace"))
    try:
        with told_as_ours(f"onnxruntime cannot open `{graph.component}`", _exceptions()):
            return _library().InferenceSession(model, settings, providers=providers)
    except BackendError:
        folder.cleanup()
        raise


def _timed(event: Event, names: tuple[str, ...]) -> NodeTime:
    return NodeTime(_name(event), event.args.op_name, names, float(event.dur))


def _name(event: Event) -> str:
    return event.name.removesuffix(_KERNEL)


def _tensor(typed: Typed) -> Tensor:
    ((kind, shape),) = typed.items()
    return Tensor(_TYPES.get(kind, kind), shape)
