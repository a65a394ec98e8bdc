"""A model that only multiplies matrices reads as the machine's arithmetic peak, one that only copies as its bandwidth.

python benchmarks/profiler_checks/p14_roofline.py [--quick]

Both go the whole way: opened by a backend, counted by the accounting, held against peaks. Peak and model are measured
in turns, as others may use the machine meanwhile: for seconds, memory can be half as fast again as it is mostly. So
medians count, of the shares of all turns for products, and of times for copies. The peak of a copy is, as in the
profiler, the best of the triad, of reading and of the engine's own copy.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np

from mmedge.backends.onnxruntime import BACKEND as REFERENCE
from mmedge.core import find
from mmedge.core.backend import Session
from mmedge.core.machine import usable_cores
from mmedge.core.manifest import Graph
from mmedge.core.onnx_graph import Tensor, read_graph
from mmedge.profiling.layers.costs import run_costs
from mmedge.profiling.layers.peaks import SIZE, Arrays, key, last_level_cache, opened
from mmedge.profiling.layers.probes import copy, product
from mmedge.profiling.layers.roofline import Part, roof
from mmedge.profiling.run import Peaks

LEAST, MOST = 0.85, 1.05
ENGINES = ("onnxruntime", "openvino")
PRECISIONS = ("float32", "int8")
ROWS = SIZE
"""Of the model. With twice as many ONNX Runtime is up to a fifth faster an operation: peaks are of square products."""


def products(engine: str, precision: str, turns: int) -> float:
    """Median share of the peak that a model of one product reaches."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        probe, probe_path = product(Path(one), precision, SIZE)
        model, model_path = product(Path(two), precision, SIZE, rows=ROWS)
        part = _counted(engine, model, model_path, {"x": (ROWS, SIZE)})
        backend = find.backend(engine)
        sessions = [opened(backend, *each, 0) for each in ((probe, probe_path), (model, model_path))]
        runs = [_run(session, graph) for session, graph in zip(sessions, (probe, model), strict=True)]
        shares = []
        for _ in range(1 + turns):
            peak_s, model_s = map(_seconds, runs)
            rate = 2 * SIZE**3 / peak_s / 1e9
            rates = {key(engine, precision): rate, key(engine, precision, rest=True): rate}
            limits = Peaks(usable_cores(), 1e3, rates, last_level_cache(), read_gbs=1e3)
            shares.append(roof(0, "encode", [part], model_s * 1e3, limits).share)
        for session in sessions:
            session.close()
    return median(shares[1:])


def copies(engine: str, turns: int) -> float:
    """Share of the bandwidth at which a model copies eight times the last level cache: one run reads what the
    one before wrote, of which the cache must not hold much."""
    cache, threads = last_level_cache(), usable_cores()
    rates = {key(engine, "float32"): 1e9, key(engine, "float32", rest=True): 1e9}
    with ExitStack() as stack:
        one, two = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        arrays = stack.enter_context(Arrays(cache, threads))
        probe, probe_path = copy(one, cache)  # two of 4 bytes each
        model, path = copy(two, cache)
        shape = (1, 1, model.cache.capacity, model.cache.head_dim)
        part = _counted(engine, model, path, {"input_ids": (1, 1)} | {port.name: shape for port in model.cache.past()})
        runs = []
        for graph, file in ((probe, probe_path), (model, path)):
            session = opened(find.backend(engine), graph, file, 0)
            stack.callback(session.close)
            runs.append(_run(session, graph))
        triad_s, read_s, copied_s, model_s = _medians((arrays.triad, arrays.read, *runs), turns)
    triad, read = 12 * arrays.size / triad_s / 1e9, 4 * arrays.size / read_s / 1e9
    limits = Peaks(threads, triad, rates, cache, read_gbs=read, copy_gbs={engine: 16 * cache / copied_s / 1e9})
    return roof(0, "encode", [part], model_s * 1e3, limits).share


def _medians(works: Sequence[Callable[[], object]], turns: int) -> list[float]:
    """Seconds of each, of so many turns after one."""
    times = [[_seconds(work) for work in works] for _ in range(1 + turns)]
    return [median(column) for column in zip(*times[1:], strict=True)]


def check(quick: bool) -> dict[str, object]:
    """Every share lies within the bound."""
    turns = 9 if quick else 45
    shares = {
        f"{engine} {precision} product": products(engine, precision, turns)
        for engine in ENGINES
        for precision in PRECISIONS
    }
    shares |= {f"{engine} copy": copies(engine, 3 * turns) for engine in ENGINES}
    return {
        "check": "P14",
        "bound": f"each share from {LEAST} to {MOST}",
        "shares": {name: round(share, 3) for name, share in shares.items()},
        "turns": {"product": turns, "copy": 3 * turns},
        "passed": all(LEAST <= share <= MOST for share in shares.values()),
    }


def _counted(engine: str, graph: Graph, path: Path, fed: dict[str, tuple[int, ...]]) -> Part:
    """What the accounting says of one run."""
    plain = REFERENCE.open_plain(graph, path)
    _run(plain, graph)()
    (made,) = plain.shapes()
    plain.close()
    dtypes = {port.name: port.dtype for port in (*graph.inputs, *(graph.cache.past() if graph.cache else ()))}
    found = run_costs(
        read_graph(path.read_bytes()), made, {name: Tensor(dtypes[name], shape) for name, shape in fed.items()}
    )
    return Part(engine, graph.precision, found.quantized_flops, found.rest_flops, found.read, found.written, found.read)


def _run(session: Session, graph: Graph) -> Callable[[], object]:
    draw = np.random.default_rng(0)
    feeds = {
        port.name: draw.standard_normal([size if isinstance(size, int) else 1 for size in port.shape]).astype(
            port.dtype
        )
        for port in graph.inputs
    }
    return lambda: session.run(feeds)


def _seconds(run: Callable[[], object]) -> float:
    """After a pause in which the threads of whoever ran before come to rest."""
    time.sleep(0.05)
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    found = check("--quick" in sys.argv)
    print(json.dumps(found, indent=2))
    sys.exit(not found["passed"])
