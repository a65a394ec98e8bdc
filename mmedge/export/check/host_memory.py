"""What a bundle takes while it runs on the CPU, at its peak, with a conversation of a given length.

Libraries, vocabulary and weights stay. The rest comes and goes, and only the largest of it counts: while a graph is
opened, while it looks at a picture, or while the decoder reads the whole conversation at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec.structs
import numpy as np
import onnx
import onnx_ir

from mmedge.core.manifest import Graph
from mmedge.core.ports import Port, Span
from mmedge.core.target import Target
from mmedge.errors import UsageError
from mmedge.export.check.findings import Sum
from mmedge.export.check.liveness import port_mib, working_mib
from mmedge.export.check.opened import Opened, constant
from mmedge.export.decoder import MIB

LENGTH = 1024
"""Tokens of pictures, texts and answers together, unless said otherwise or the model reads fewer."""

LOOK_UPS = {"Gather", "GatherBlockQuantized"}
TOTAL = "total"
WORDS = 20
"""Bytes held for each of the vocabulary's file: measured with tokenizers 0.23 and 49,280 tokens of 1.5 MB."""


@dataclass(frozen=True)
class Host:
    """An engine that runs in the process. Measured with the versions that the comments name, two threads."""

    libraries_mib: float
    """Python, numpy and the engine, resident, with a graph of a few kilobytes."""
    multiplied: float
    """Bytes held for each byte of weights that are multiplied."""
    stepped: float
    """The same of graphs with a growing cache, whose steps are of many lengths."""
    looked_up: float
    """The same of tables that rows are read from."""
    mapped: float
    """Bytes more for each byte of both in a file that stays mapped (see `_stays_mapped`)."""
    caches: int
    """How often a growing cache is there while a step runs."""
    scores: int
    """How often attention holds the scores of all heads."""


HOSTS = {
    # onnxruntime 1.31: weights are copied out of their file and packed, tables stay in it and few of their rows are
    # ever read; attention holds its scores and what it makes of them; a growing cache is read and written anew.
    "onnxruntime": Host(libraries_mib=55, multiplied=1.05, stepped=1.05, looked_up=0, mapped=0, caches=2, scores=2),
    # openvino 2026.4: weights are packed, a decoder's most once more for steps of other lengths; the file that they
    # come from is let go where it was compiled. Attention goes through its scores in blocks.
    "openvino": Host(libraries_mib=110, multiplied=1.0, stepped=1.7, looked_up=0, mapped=1, caches=2, scores=0),
}


def runs_on_host(target: Target) -> bool:
    """Whether every engine of the target is one of `HOSTS`."""
    return all(backend in HOSTS for backend in target.backends.values())


def plan_run(
    graphs: Sequence[Opened], target: Target, length: int | None = None, vocabulary: int = 0
) -> tuple[Sum, ...]:
    """The parts of the peak; ``vocabulary`` is the size of tokenizer.json in bytes.

    Raises:
        UsageError: no conversation can be of this length.
    """
    length = length_of(graphs, length)
    backends = {opened.component: target.backends[opened.graph.role] for opened in graphs}
    words = Sum("tokenizer", WORDS * vocabulary / MIB, f"{WORDS} x its file")
    return (words, *_parts(graphs, backends, length)) if vocabulary else tuple(_parts(graphs, backends, length))


def length_of(graphs: Sequence[Opened], length: int | None) -> int:
    """As asked for, or what is usual.

    Raises:
        UsageError: it is more than the bundle has room for.
    """
    most = max((span.largest for opened in graphs for span in _spans(opened.graph)), default=LENGTH)
    if length is not None and not 1 <= length <= most:
        raise UsageError(f"a conversation of {length} tokens is asked for, the bundle reads 1 to {most}")
    return length or min(LENGTH, most)


def _spans(graph: Graph) -> Iterator[Span]:
    return (span for profile in graph.profiles for word, span in profile.items() if word in (TOTAL, "length"))


def _parts(graphs: Sequence[Opened], backends: Mapping[str, str], length: int) -> Iterator[Sum]:
    for name in dict.fromkeys(backends.values()):
        yield Sum(f"libraries of {name}", HOSTS[name].libraries_mib, "measured, with Python and numpy")
    weights = [_weights(opened, backends[opened.component]) for opened in graphs]
    yield from weights
    moments = (*_opening(graphs, weights), *_running(graphs, backends, length))
    yield from max(moments, key=lambda parts: sum(part.mib for part in parts))


def _opening(graphs: Sequence[Opened], weights: Sequence[Sum]) -> Iterator[tuple[Sum, ...]]:
    """A weight is there twice while it is packed; but the weights of graphs that are opened later are not there yet,
    nearly so where other engines open them meanwhile."""
    for number, opened in enumerate(graphs):
        largest = max(map(_bytes, weights_of(opened.proto)[1]), default=0) / MIB
        more = max(0.0, largest - sum(part.mib for part in weights[number + 1 :]))
        yield (Sum(f"opening {opened.component}", more, "its largest weight, while it is packed"),)


def _running(graphs: Sequence[Opened], backends: Mapping[str, str], length: int) -> Iterator[tuple[Sum, ...]]:
    """What is there besides while each graph runs."""
    kept: list[Sum] = []
    for opened in graphs:
        backend, outputs = backends[opened.component], _outputs(opened, graphs, length)
        yield (*kept, *_cache(opened, backend, length), _values(opened, HOSTS[backend], length), *outputs)
        kept += [msgspec.structs.replace(part, mib=2 * part.mib, how=f"2 x {part.how}, a copy") for part in outputs]


def _weights(opened: Opened, backend: str) -> Sum:
    host = HOSTS[backend]
    looked_up, multiplied = weights_mib(_as_read(opened, backend))
    times = host.stepped if opened.graph.cache and not opened.graph.cache.capacity else host.multiplied
    mapped = host.mapped if _stays_mapped(opened) else 0
    times, once = times + mapped, host.looked_up + mapped
    how = f"{times:g} x {multiplied:,.1f} multiplied + {once:g} x {looked_up:,.1f} looked up"
    total = times * multiplied + once * looked_up
    return Sum(f"weights of {opened.component}", total, how)


def _stays_mapped(opened: Opened) -> bool:
    """OpenVINO opens those that rotate from a model file instead of a compiled one (see `backends.openvino`), and packs
    a decoder's compressed weights when they are first needed."""
    if opened.graph.cache and opened.graph.precision.endswith("-weights"):
        return True
    return any(node.op_type == "RotaryEmbedding" for node in opened.program.graph)


def _as_read(opened: Opened, backend: str) -> onnx.ModelProto:
    """The graph in the form that the engine reads."""
    form = opened.graph.made_for(backend).file
    if form == opened.graph.file:
        return opened.proto
    folder = opened.path.parents[len(PurePosixPath(opened.graph.file).parts) - 1]
    return onnx.load(folder / form, load_external_data=False)


def weights_mib(proto: onnx.ModelProto) -> tuple[float, float]:
    """Of tables that rows are read from, and of all others."""
    tables, others = weights_of(proto)
    return sum(map(_bytes, tables)) / MIB, sum(map(_bytes, others)) / MIB


def weights_of(proto: onnx.ModelProto) -> tuple[list[onnx.TensorProto], list[onnx.TensorProto]]:
    """Tables that rows are read from, and all others."""
    readers: dict[str, set[str]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    tables = {name for name, kinds in readers.items() if len(kinds) == 1 and kinds <= LOOK_UPS}
    weights = proto.graph.initializer
    return [each for each in weights if each.name in tables], [each for each in weights if each.name not in tables]


def _bytes(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims) * onnx_ir.DataType(tensor.data_type).bitwidth // 8


def _cache(opened: Opened, backend: str, length: int) -> tuple[Sum, ...]:
    if (cache := opened.graph.made_for(backend).cache) is None:
        return ()
    item, slots = np.dtype(cache.dtype).itemsize, cache.capacity or length
    copies = 1 if cache.shared else 2 if cache.capacity else HOSTS[backend].caches
    how = f"{copies} x {cache.layers} x 2 x {cache.heads} x {slots} x {cache.head_dim} x {item} bytes"
    one = cache.layers * 2 * cache.heads * slots * cache.head_dim * item / MIB
    return (Sum(f"cache of {opened.component}", copies * one, how),)


def _outputs(opened: Opened, graphs: Sequence[Opened], length: int) -> tuple[Sum, ...]:
    """What later graphs read."""
    read = {port.name for other in graphs for port in other.graph.inputs}
    sizes = _sizes(opened.graph, length)
    mib = sum(port_mib(port, sizes) for port in opened.graph.outputs if port.name in read)
    return (Sum(f"outputs of {opened.component}", mib, f"{mib:,.1f}"),) if mib else ()


def _values(opened: Opened, host: Host, length: int) -> Sum:
    words = _sizes(opened.graph, length)
    sizes = {port.name: (_elements(port, words), np.dtype(port.dtype)) for port in opened.ports} | opened.sized(words)
    folded = set(_folded(opened))
    alive = {name: size for name, size in sizes.items() if name not in folded}
    mib = working_mib(opened, alive, _scores(opened, opened.shaped(words), host.scores))
    unknown = sum(value.name not in sizes for node in opened.program.graph for value in node.outputs)
    when = f"at {length} tokens" if opened.graph.role == "decode" else "of a picture or tile"
    how = f"alive at once {when}" + (f", {unknown} of unknown size" if unknown else "")
    return Sum(f"values of {opened.component}", mib, how)


def _elements(port: Port, words: Mapping[str, int]) -> int:
    return math.prod(size if isinstance(size, int) else words.get(size, 1) for size in port.shape)


def _folded(opened: Opened) -> Iterator[str]:
    """Values that are made of weights alone: engines compute them once, in place of these."""
    known: set[str] = set()
    for node in opened.program.graph:
        given = [value for value in node.inputs if value is not None]
        if given and all(constant(value) is not None or value.name in known for value in given):
            known |= {str(value.name) for value in node.outputs}
    yield from known


def _sizes(graph: Graph, length: int) -> dict[str, int]:
    """The words in the shapes of a graph when the whole conversation is read at once."""
    words = {size for port in graph.inputs for size in port.shape if isinstance(size, str)}
    usual = {word: span.usual for profile in graph.profiles for word, span in profile.items()}
    return {word: usual.get(word, 1) for word in words} | {"past": 0, "total": length, "length": length, "asked": 1}


def _scores(opened: Opened, shapes: Mapping[str, tuple[int, ...]], times: int) -> dict[onnx_ir.Node, int]:
    """Bytes of the scores ``[heads, queries, keys]`` inside each attention, ``times`` over."""
    return {
        node: times * 4 * math.prod((*query[:-1], key[2]))
        for node in opened.program.graph
        if node.op_type == "Attention"
        for query, key in [[shapes.get(value.name, ()) if value is not None else () for value in node.inputs[:2]]]
        if len(query) == len(key) == 4
    }
