"""What this machine can do at most: memory bandwidth by a triad, arithmetic by square matrix products of each engine.

The triad runs over arrays four times as large as the last level cache. It is ``a = b + c``, without the factor of
STREAM's triad, which moves no bytes: numpy would multiply in a pass of its own, and with both passes over pieces that a
core's cache holds came out 12-15 % too slow (pieces of 1 MB; 35 % with 256 KB). As in STREAM 12 bytes count for each
float32, though most processors also read what they are about to overwrite. Weights are only read, which goes faster
where that is so: it is measured apart, and from both follows what writing costs. The loops of an engine can be up to a
tenth faster than numpy's in Python's threads, or slower: each copies as much (`probes.copy`), as each has products of
its own, and the cheaper writing counts.

Compared once with ``MEMCPY`` of mbw 1.2.2 (Debian), which counts what it copies once, here twice: on a Zen 4 core, in
nine turns among other work, the fastest were 25.6 GB/s there, 28.4 of the triad and 28.2 of reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.backend import Backend, Session
from mmedge.core.machine import usable_cores
from mmedge.core.manifest import Graph
from mmedge.core.ports import Tensors
from mmedge.profiling.layers.probes import copy, product
from mmedge.profiling.run import Peaks

REPEATS = 9
TIMES_CACHE = 4
LARGEST = 256 << 20
"""Bytes of an array, whatever the cache: there are three."""
PIECE = 1 << 20
"""Elements of each array that a thread takes at once."""
SIZE = 2048
"""Rows, inputs and outputs of a product, 17 MB in float32: so many that what starting a run costs is lost among them.
With 1536 ONNX Runtime reached 109 GFLOP/s on two cores where it reached 140 with 2048."""
UNKNOWN_CACHE = 32 << 20
"""Where the system does not tell."""

Say = Callable[[str], None]
Kind = tuple[str, str, bool]
"""Engine, precision, and whether weights are spelled as MatMulNBits."""


def peaks(
    kinds: Iterable[Kind], threads: int = 0, say: Say = lambda line: None, *, memory: Peaks | None = None
) -> Peaks:
    """Of this machine with ``threads`` threads; 0 means all cores. What was found of its ``memory`` is not measured
    again.

    Raises:
        BackendError: an engine is missing, or refuses a product.
    """
    cache, count = last_level_cache(), threads or usable_cores()
    if memory is None:
        say("peaks: memory")
    triad, read = (memory.triad_gbs, memory.read_gbs) if memory else bandwidths(cache, count)
    kinds = tuple(dict.fromkeys(kinds))
    copied = dict(memory.copy_gbs) if memory else {}
    for engine in dict.fromkeys(engine for engine, *_ in kinds):
        copied[engine] = copied.get(engine) or copy_rate(find.backend(engine), cache, threads)
    rates: dict[str, float] = {}
    for engine, precision, nbits in kinds:
        say(f"peaks: {engine} {precision}")
        backend = find.backend(engine)
        rates[key(engine, precision)] = product_rate(backend, precision, threads, nbits=nbits)
        rates[key(engine, precision, rest=True)] = (
            product_rate(backend, _floats(precision), threads, settings_of=precision)
            if _floats(precision) != precision
            else rates[key(engine, precision)]
        )
    return Peaks(count, triad, rates, cache, REPEATS, read, copied)


def peaks_of_all(asked: Iterable[tuple[int, Iterable[Kind]]], say: Say = lambda line: None) -> Peaks:
    """With every number of threads that is asked for, of its products: the first, which carries the others.

    Raises:
        BackendError: an engine is missing, or refuses a product.
    """
    by_threads: dict[int, list[Kind]] = {}
    for threads, kinds in asked:
        by_threads.setdefault(threads or usable_cores(), []).extend(kinds)
    first, *others = (peaks(kinds, threads, say) for threads, kinds in by_threads.items())
    return replace(first, others=tuple(others))


def with_threads(found: Peaks, threads: int) -> Peaks:
    """Those of so many threads; 0 means all cores."""
    count = threads or usable_cores()
    return next(each for each in (found, *found.others) if each.threads == count)


def key(engine: str, precision: str, *, rest: bool = False) -> str:
    """Under which a rate is found: of the products whose weights are quantized, or of the ``rest`` of such a graph."""
    return f"{engine} {precision}{' rest' if rest else ''}"


def moving_s(found: Peaks, engine: str, read: float, written: float) -> float:
    """Seconds that the engine needs at least for so many bytes. A triad reads two and writes one, a copy reads one:
    what their writing costs is what reading alone does not explain."""
    copying = found.copy_gbs.get(engine, 0.0)
    reading = max(found.read_gbs, found.triad_gbs, copying)
    writing = 3 / found.triad_gbs - 2 / reading
    if copying:
        writing = min(writing, 2 / copying - 1 / reading)
    return (read / reading + written * writing) / 1e9


def bandwidths(cache: int, threads: int) -> tuple[float, float]:
    """Of the triad and of reading alone, 10^9 bytes per second."""
    with Arrays(cache, threads) as arrays:
        return 12 * arrays.size / _median(arrays.triad) / 1e9, 4 * arrays.size / _median(arrays.read) / 1e9


class Arrays:
    """Three float32 arrays that no cache holds, and threads that pass over them."""

    def __init__(self, cache: int, threads: int) -> None:
        self.size = min(TIMES_CACHE * cache, LARGEST) // 4
        """Elements of each."""
        self._arrays = [np.full(self.size, value, np.float32) for value in (0.0, 1.0, 2.0)]
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def triad(self) -> None:
        """Once over all."""
        first, second, third = self._arrays

        def work(piece: slice) -> None:
            np.add(second[piece], third[piece], out=first[piece])

        self._on_all(work)

    def read(self) -> None:
        """Once over one of them."""
        bits = self._arrays[1].view(np.uint32)
        self._on_all(lambda piece: np.bitwise_or.reduce(bits[piece]))

    def __enter__(self) -> Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self._arrays.clear()

    def _on_all(self, work: Callable[[slice], object]) -> None:
        """Whoever is free takes the next piece: a thread that has to wait for its core holds up nobody."""
        begins = iter(range(0, self.size, PIECE))

        def share(_: int) -> None:
            for begin in begins:
                work(slice(begin, begin + PIECE))

        list(self._pool.map(share, range(self._threads)))


def product_rate(
    backend: Backend, precision: str, threads: int = 0, *, nbits: bool = False, settings_of: str = ""
) -> float:
    """10^9 operations per second of a square product, in a graph of the precision ``settings_of`` or its own."""
    with TemporaryDirectory(prefix="mmedge-probe-") as folder:
        graph, path = product(Path(folder), precision, SIZE, nbits=nbits)
        graph = Graph(graph.component, graph.file, graph.inputs, graph.outputs, settings_of or precision)
        session = opened(backend, graph, path, threads)
        try:
            return 2 * SIZE**3 / _median(_running(session, graph)) / 1e9
        finally:
            session.close()


def copy_rate(backend: Backend, cache: int, threads: int = 0) -> float:
    """10^9 bytes per second, read and written, of tensors that together are eight times as large as the cache."""
    with TemporaryDirectory(prefix="mmedge-probe-") as folder:
        elements = min(cache, LARGEST // 8)
        graph, path = copy(Path(folder), elements)
        session = opened(backend, graph, path, threads)
        try:
            return 2 * 2 * 4 * elements / _median(_running(session, graph)) / 1e9
        finally:
            session.close()


def opened(backend: Backend, graph: Graph, path: Path, threads: int) -> Session:
    """A graph that lies in a folder for nothing else."""
    artifact = backend.compile(graph, path, path.parent) if backend.compiles(graph) else path
    return backend.open(graph, artifact, threads)


def last_level_cache(root: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the largest cache of the first core."""
    sizes = []
    for file in root.glob("index*/size"):
        text = file.read_text().strip()
        number, unit = text.rstrip("KMG"), text[-1:]
        if number.isdecimal():
            sizes.append(int(number) << {"K": 10, "M": 20, "G": 30}.get(unit, 0))
    return max(sizes, default=UNKNOWN_CACHE)


def _running(session: Session, graph: Graph) -> Callable[[], object]:
    draw = np.random.default_rng(1)
    feeds: Tensors = {
        port.name: draw.standard_normal([size if isinstance(size, int) else 1 for size in port.shape]).astype(
            port.dtype
        )
        for port in graph.inputs
    }
    return lambda: session.run(feeds)


def _median(work: Callable[[], object]) -> float:
    """Seconds, of nine after two."""
    times = []
    for _ in range(2 + REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times[2:])


def _floats(precision: str) -> str:
    """In which type a graph of the precision computes what it does not quantize."""
    return "float16" if precision == "float16" else "float32"
