"""Values of a graph that are alive at the same time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir

from mmedge.core.ports import Port
from mmedge.export.check.opened import Opened, constant
from mmedge.export.decoder import MIB


def working_mib(
    opened: Opened, sizes: Mapping[str, tuple[int, np.dtype]], inside: Mapping[onnx_ir.Node, int] | None = None
) -> float:
    """The most that is alive at once between inputs and outputs, in the order of the nodes; while a node runs, with the
    bytes ``inside`` it."""
    last: dict[str, int] = {}
    nodes = list(opened.program.graph)
    for index, node in enumerate(nodes):
        last.update({str(value.name): index for value in node.inputs if value is not None})
    alive = peak = 0
    for index, node in enumerate(nodes):
        made = [value for value in node.outputs if constant(value) is None]
        alive += sum(_bytes(sizes, str(value.name)) for value in made)
        peak = max(peak, alive + (inside or {}).get(node, 0))
        ended = {str(value.name) for value in (*node.inputs, *made) if value is not None and value.producer()}
        alive -= sum(_bytes(sizes, name) for name in ended if last.get(name, index) == index)
    return peak / MIB


def port_mib(port: Port, sizes: Mapping[str, int]) -> float:
    """Of a tensor at the edge of a graph, with numbers for the words in its shape."""
    elements = math.prod(size if isinstance(size, int) else sizes.get(size, 1) for size in port.shape)
    return elements * np.dtype(port.dtype).itemsize / MIB


def _bytes(sizes: Mapping[str, tuple[int, np.dtype]], name: str) -> int:
    elements, dtype = sizes.get(name, (0, np.dtype(np.int8)))
    return elements * dtype.itemsize
