"""What OpenVINO tells of its nodes: the time of each, and which nodes of the ONNX graph it was made from.

Operators of ONNX become several of OpenVINO's, of which the last carries the name; the others, and what the engine adds
itself, stand with the one that reads them, at the end of the graph with the one that they read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmedge.backends.openvino import OpenVinoSession
from mmedge.core.backend import NodeTime
from mmedge.core.manifest import Graph
from mmedge.core.ports import Tensors

SETTING = "PERF_COUNT"
_ORIGINAL = "originalLayersNames"


class ProfiledOpenVino(OpenVinoSession):
    """A session that asks the engine after each run."""

    def __init__(self, graph: Graph, compiled: Any, names: frozenset[str]) -> None:
        self._times: list[tuple[NodeTime, ...]] = []
        self._found = dict(original_names(compiled.get_runtime_model().get_ordered_ops(), names))
        super().__init__(graph, compiled.create_infer_request())

    def run(self, feeds: Tensors, outputs: Any = None) -> Tensors:
        found = super().run(feeds, outputs)
        self._times.append(tuple(map(self._timed, filter(_was_run, self._running().profiling_info))))
        return found

    def node_times(self) -> tuple[tuple[NodeTime, ...], ...]:
        return tuple(self._times)

    def _timed(self, info: Any) -> NodeTime:
        names = self._found.get(info.node_name, ())
        return NodeTime(info.node_name, info.node_type, names, info.real_time.total_seconds() * 1e6)


def original_names(nodes: list[Any], names: frozenset[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of each node that is run, those among ``names`` that it stands for."""
    found: dict[str, tuple[str, ...]] = {}
    for node in reversed(nodes):
        own = _own_names(node, names)
        readers = (
            reader.get_node().get_friendly_name() for out in node.outputs() for reader in out.get_target_inputs()
        )
        own = own or next((found[reader] for reader in readers if found.get(reader)), ())
        found[node.get_friendly_name()] = own
    for node in nodes:  # an output of the graph has no reader
        before = (found[value.get_node().get_friendly_name()] for value in node.input_values())
        name = node.get_friendly_name()
        found[name] = found[name] or next(filter(None, before), ())
    yield from found.items()


def _own_names(node: Any, names: frozenset[str]) -> tuple[str, ...]:
    told = node.get_rt_info()[_ORIGINAL].value.split(",")
    return tuple(dict.fromkeys(name for name in told if name in names))


def _was_run(info: Any) -> bool:
    return bool(info.status == type(info.status).EXECUTED)
