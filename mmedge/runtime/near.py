"""Searching an index of very many vectors: a graph of neighbours beside it, walked instead of comparing all.

The graph is that of Malkov and Yashunin 2016 (https://arxiv.org/abs/1603.09320) as `usearch` builds it, mapped from its
file, so that a search starts at once. What it misses is measured against the exact search whenever it is brought up to
date. A search uses it only as long as it is of the very items that the index has now.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.files import sha256_of
from mmedge.errors import ResourceError
from mmedge.needs import needs
from mmedge.runtime.index import Index, nearest

if TYPE_CHECKING:
    from usearch.index import Index as Graph

SUFFIX = ".near"
NOTE = "near"
"""Under which an index keeps the digests of the items and of the graph's file."""
KINDS = {"float32": "f32", "float16": "f16", "int8": "f16"}
"""How the graph keeps vectors; its own int8 has one scale for all, and loses an eighth of the nearest."""
BATCH = 1024
QUERIES = 100
"""Items that are searched for to measure the recall."""
COUNT = 10
NEIGHBOURS, SEARCHED = 16, 128
"""Of each item in the graph, and how many are looked at in a search: `benchmarks/search.py` shows what they cost."""


def near_file(index: Path) -> Path:
    """Where the graph of an index is."""
    return index.with_name(f"{index.name}{SUFFIX}")


def bring_up_to_date(index: Index, done: Callable[[str], None] = lambda what: None) -> float:
    """Make the graph of an index, or mend the one that is there; ``done`` hears of every item that is added. Returns
    the share of the `COUNT` nearest that it finds.

    Raises:
        BackendError: usearch is not installed.
    """
    ids, path = index.ids(), near_file(index.path)
    graph = _opened(index, path, whole=True) or _empty(index)
    known = graph.keys[:].astype(np.int64)
    for number in np.setdiff1d(known, ids):
        graph.remove(int(number))
    new = np.setdiff1d(ids, known)
    for begin in range(0, len(new), BATCH):
        numbers = new[begin : begin + BATCH]
        graph.add(numbers.astype(np.uint64), index.vectors(numbers.tolist()))
        for number in numbers:
            done(str(number))
    index.note(NOTE, f"{_digest(ids)} {_written(graph, path)}")
    return _recall(index, Near(graph), ids)


class Near:
    """The graph of an index, opened by `open_near`."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def find(self, query: np.ndarray, count: int) -> list[tuple[int, float]]:
        """Numbers and cosines of the items that are nearest to ``query`` ``[width]``, or nearly so, the nearest
        first."""
        found: Any = self._graph.search(query, count)
        return [(int(key), 1.0 - float(distance)) for key, distance in zip(found.keys, found.distances, strict=True)]


def open_near(index: Index) -> Near | None:
    """The graph of an index; None where there is none of just its items.

    Raises:
        BackendError: there is one, and usearch is not installed.
    """
    noted = (index.noted(NOTE) or "").partition(" ")[0]
    if not near_file(index.path).is_file() or noted != _digest(index.ids()):
        return None
    graph = _opened(index, near_file(index.path), whole=False)
    return None if graph is None else Near(graph)


def _opened(index: Index, path: Path, *, whole: bool) -> Graph | None:
    """The graph as it was written, ``whole`` in memory to be changed; None if it is another one."""
    noted = (index.noted(NOTE) or "").partition(" ")[2]
    if not path.is_file() or _file_digest(path) != noted:
        return None
    with needs("search"):
        from usearch.index import Index as Graph
    graph: Any = Graph.restore(str(path), view=not whole)
    return graph


def _empty(index: Index) -> Graph:
    with needs("search"):
        from usearch.index import Index as Graph
    return Graph(
        ndim=index.about.width,
        metric="cos",
        dtype=KINDS[index.about.precision],
        connectivity=NEIGHBOURS,
        expansion_search=SEARCHED,
    )


def _recall(index: Index, near: Near, ids: np.ndarray) -> float:
    _, vectors = index.read()
    shares = []
    for place in np.linspace(0, len(ids) - 1, min(QUERIES, len(ids))).astype(int):
        want = {int(ids[row]) for row, _ in nearest(vectors, vectors[place], COUNT)}
        shares.append(len(want & {number for number, _ in near.find(vectors[place], COUNT)}) / len(want))
    return float(np.mean(shares)) if shares else 1.0


def _written(graph: Graph, path: Path) -> str:
    """The digest of the file that is at ``path`` now."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        graph.save(str(draft))
        digest = _file_digest(draft)
        draft.replace(path)
    except (OSError, RuntimeError) as error:  # usearch has no kind of its own
        raise ResourceError(f"cannot write `{path}`: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return digest


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return sha256_of(file)


def _digest(ids: np.ndarray) -> str:
    return hashlib.sha256(ids.astype("<i8").tobytes()).hexdigest()
