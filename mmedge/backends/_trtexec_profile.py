"""What TensorRT's own tool tells of an engine's layers: ``--exportProfile``, and ``--exportLayerInfo`` for their names.

Of an engine built with ``--profilingVerbosity=detailed`` each layer lists the nodes of the ONNX graph that it was made
from. Otherwise its name is made of theirs: of all of them, as in ``a + b`` or ``PWN(a, b)``, or only of the first and
the last, as in ``{ForeignNode[a...b]}``. Written from published examples of versions 8 to 10.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec
from msgspec import Struct

from mmedge.core.backend import NodeTime
from mmedge.errors import InputError

_ONNX = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_BETWEEN = re.compile(r" \+ |\.\.\.|[\[\](){}, ]+")


class Line(Struct):
    """Of ``--exportProfile``: a layer, or how often all were run."""

    name: str = ""
    average_ms: float = msgspec.field(default=0.0, name="averageMs")
    median_ms: float | None = msgspec.field(default=None, name="medianMs")
    """Told since version 8.5."""


class Layer(Struct):
    """Of ``--exportLayerInfo``."""

    name: str = msgspec.field(name="Name")
    kind: str = msgspec.field(default="", name="LayerType")
    metadata: str = msgspec.field(default="", name="Metadata")


class Layers(Struct):
    """The whole of it."""

    layers: list[Layer | str] = msgspec.field(name="Layers")


def node_times(profile: bytes, layers: bytes | None, names: Collection[str]) -> tuple[NodeTime, ...]:
    """Of each layer that was run; ``names`` are the nodes of the ONNX graph.

    Raises:
        InputError: a file is not what trtexec writes.
    """
    try:
        lines = msgspec.json.decode(profile, type=list[Line])
        told = msgspec.json.decode(layers, type=Layers).layers if layers else []
    except msgspec.DecodeError as error:
        raise InputError(
            f"this is no profile of trtexec: {error}", hint="--exportProfile and --exportLayerInfo"
        ) from error
    known = {layer.name: layer for layer in told if isinstance(layer, Layer)}
    return tuple(_timed(line, known.get(line.name) or Layer(line.name), names) for line in lines if line.name)


def _timed(line: Line, layer: Layer, names: Collection[str]) -> NodeTime:
    told = _ONNX.findall(layer.metadata) or _BETWEEN.split(line.name)
    found = tuple(dict.fromkeys(name for name in told if name in names))
    ms = line.average_ms if line.median_ms is None else line.median_ms
    return NodeTime(line.name, layer.kind, found, ms * 1e3)
