"""What a search of many vectors takes, beside a plain product of numpy, and what the faster one misses.

    python benchmarks/search.py [--count 100000] [--width 512] [--rounds 50] [--try]

Vectors are drawn around as many centres as there are hundreds of them, as things are that mean something; queries are
others of the same kind. One round asks every way the same query, in an order of its own. Writes
``results/search.json``: milliseconds and ratios to the plain product with the middle half of the rounds, seconds to
read an index, and of the graph of neighbours (`mmedge.runtime.near`) the share of the ten nearest that it finds.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from published import RESULTS

from mmedge.runtime.index import About, Index, Item, make_index, open_index
from mmedge.runtime.near import bring_up_to_date, open_near
from mmedge.runtime.vectors import PRECISIONS, nearest

BATCH = 1000
COUNT = 10


def drawn(count: int, width: int, seed: int, centres: np.ndarray) -> np.ndarray:
    chance = np.random.default_rng(seed)
    rows = centres[chance.integers(0, len(centres), count)] + chance.normal(0, 0.7, (count, width))
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def filled(path: Path, precision: str, vectors: np.ndarray) -> None:
    with make_index(path, About("0" * 64, "", vectors.shape[1], precision)) as index:
        for begin in range(0, len(vectors), BATCH):
            rows = vectors[begin : begin + BATCH]
            index.add([Item(f"{begin + number}.jpg", "image", "") for number in range(len(rows))], rows)


def in_turns(ways: dict[str, Callable[[np.ndarray], object]], queries: np.ndarray) -> dict[str, list[float]]:
    """Milliseconds of each way for each query."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(queries[0])
    for query in queries:
        for name in random.sample(list(ways), len(ways)):
            began = time.perf_counter()
            ways[name](query)
            taken[name].append((time.perf_counter() - began) * 1e3)
    return taken


def middle(values: list[float], digits: int) -> dict[str, float]:
    low, _, high = quantiles(values, n=4)
    return {"median": round(median(values), digits), "low": round(low, digits), "high": round(high, digits)}


def measured(index: Index, began: float, queries: np.ndarray) -> dict[str, object]:
    items, vectors = index.read()
    read_s = time.perf_counter() - began
    seconds = time.perf_counter()
    share = bring_up_to_date(index)
    build_s = time.perf_counter() - seconds
    near = open_near(index)
    assert near, "the graph was just made"
    ways: dict[str, Callable[[np.ndarray], object]] = {
        "numpy product": lambda query: vectors @ query,
        "exact": lambda query: nearest(vectors, query, COUNT),
        "near": lambda query: near.find(query, COUNT),
    }
    taken = in_turns(ways, queries)
    plain = taken["numpy product"]
    return {
        "read_s": round(read_s, 2),
        "build_graph_s": round(build_s, 1),
        "recall_at_10": round(share, 4),
        "ms": {name: middle(values, 2) for name, values in taken.items()},
        "by_numpy_product": {
            name: middle([one / two for one, two in zip(values, plain, strict=True)], 3)
            for name, values in taken.items()
            if name != "numpy product"
        },
        "items": len(items),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--try", action="store_true", dest="trying", help="write nothing into results")
    options = parser.parse_args()
    centres = np.random.default_rng(0).normal(size=(max(1, options.count // 100), options.width))
    vectors = drawn(options.count, options.width, 1, centres)
    queries = drawn(options.rounds, options.width, 2, centres)
    found: dict[str, object] = {"width": options.width}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            path = Path(folder) / precision
            filled(path, precision, vectors)
            began = time.perf_counter()
            with open_index(path) as index:
                about = index.about
            with make_index(path, about) as index:
                found[precision] = measured(index, began, queries)
    found["versions"] = {name: version(name) for name in ("numpy", "usearch")}
    text = json.dumps(found, indent=1)
    print(text)
    if not options.trying:
        (RESULTS / "search.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
