"""Searching an index of very many vectors: a graph of neighbours beside it, walked instead of comparing all.

The graph is that of Malkov and Yashunin 2016 (https://arxiv.org/abs/1603.09320) as `usearch` builds it, mapped from its
file, so that a search starts at once. What it misses is measured against the exact search whenever it is brought up to
date. A search uses it only as long as it is of the very items that the index has now.

usearch believes whatever a file says, and a wrong one ends the process. So a graph is opened only where it was made:
see `made_here`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.whole_file import check_place
from mmedge.errors import ResourceError, UsageError
from mmedge.needs import needs
from mmedge.runtime.index import MAGIC, STATE, Index
from mmedge.runtime.made_here import Made, forget, place_of_notes, remember, remembered
from mmedge.runtime.vectors import nearest

if TYPE_CHECKING:
    from usearch.index import Index as Graph

SUFFIX = ".near"
NOTE = "near"
"""Under which an index keeps that the graph beside it is its own, and which items that has."""
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


def has_own(index: Index) -> bool:
    """Whether the file that is at the place of its graph was made as that; not whether it is to be believed."""
    path = near_file(index.path)
    if index.noted(NOTE) is None or os.path.islink(path) or not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) != MAGIC  # another index may have got this name since
    except OSError:
        return False


def check_near(index: Index) -> None:
    """Refuse before the work starts to make a graph.

    Raises:
        UsageError: there is something else at its place.
        BackendError: usearch is not installed.
        ResourceError: nothing can be noted of it.
    """
    path = near_file(index.path)
    check_place(path)
    if path.exists() and not has_own(index):
        raise UsageError(
            f"cannot make the graph of neighbours: `{path}` is there, and is not of this index",
            hint="move it away, or name another index",
        )
    with needs("search"):
        import usearch.index  # noqa: F401
    place_of_notes()


def bring_up_to_date(index: Index, done: Callable[[str], None] = lambda what: None) -> float:
    """Make the graph of an index, or mend the one that is there; ``done`` hears of every item that is added. Returns
    the share of the `COUNT` nearest that it finds.

    Raises:
        UsageError: there is something else at its place.
        BackendError: usearch is not installed.
    """
    check_near(index)
    path, state = near_file(index.path), index.noted(STATE) or ""
    made = _believed(index)
    if made and made.of == state:
        return made.recall
    graph = (_opened(path, view=False) if made else None) or _empty(index)
    _mend(graph, index, done)
    _write(graph, index, state)
    opened = _opened(path, view=True)
    if opened is None:
        raise ResourceError(f"cannot read `{path}` again", hint="is its disk broken?")
    recall = _recall(index, Near(opened))
    remember(path, state, recall)
    return recall


def drop_near(index: Index) -> None:
    """Remove the graph of an index, and nothing else that may be there."""
    if has_own(index):
        path = near_file(index.path)
        path.unlink(missing_ok=True)
        forget(path)
    if index.noted(NOTE) is not None:
        index.note(NOTE, None)


class Near:
    """The graph of an index, opened by `open_near`."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def find(self, query: np.ndarray, count: int) -> list[tuple[int, float]]:
        """Numbers and cosines of the items that are nearest to ``query`` ``[width]``, or nearly so, the nearest
        first."""
        found: Any = self._graph.search(query, min(count, max(1, len(self._graph))))
        return [(int(key), 1.0 - float(distance)) for key, distance in zip(found.keys, found.distances, strict=True)]


def open_near(index: Index) -> Near | None:
    """The graph of an index; None where there is none of just its items that was made here.

    Raises:
        BackendError: there is one, and usearch is not installed.
    """
    made = _believed(index)
    if not made or made.of != (index.noted(STATE) or ""):
        return None
    graph = _opened(near_file(index.path), view=True)
    if graph is None or _believed(index) != made:  # another process put a newer one there
        return None
    return Near(graph)


def _believed(index: Index) -> Made | None:
    """What is noted here of the graph that this index had when it last got one."""
    made = remembered(near_file(index.path))
    return made if made and made.of == index.noted(NOTE) else None


def _opened(path: Path, *, view: bool) -> Graph | None:
    """A graph, mapped from its file, or whole in memory to be changed; None if it cannot be read."""
    with needs("search"):
        from usearch.index import Index as Graph
    try:
        graph: Any = Graph.restore(str(path), view=view)
    except (RuntimeError, ValueError, OSError):
        return None
    if graph is not None:
        graph.expansion_search = SEARCHED  # the file does not say
    return graph


def _mend(graph: Graph, index: Index, done: Callable[[str], None]) -> None:
    """Bring the items of a graph to those of its index."""
    ids, known = index.ids(), graph.keys[:].astype(np.int64)
    for number in np.setdiff1d(known, ids):
        graph.remove(int(number))
    new = np.setdiff1d(ids, known)
    for begin in range(0, len(new), BATCH):
        numbers = new[begin : begin + BATCH]
        # The first ones one by one: added at once to a graph of few, some find no neighbours and are never found.
        threads = 0 if len(graph) else 1
        graph.add(numbers.astype(np.uint64), index.vectors(numbers.tolist()), threads=threads)
        for number in numbers:
            done(str(number))


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


def _recall(index: Index, near: Near) -> float:
    """Each of some items is searched for, and does not count where it finds itself."""
    with index.still():
        ids, vectors = index.rows()
    shares = []
    for place in np.linspace(0, len(ids) - 1, min(QUERIES, len(ids))).astype(int):
        own, query = int(ids[place]), vectors[place]
        want = [int(ids[row]) for row, _ in nearest(vectors, query, COUNT + 1) if row != place][:COUNT]
        got = [number for number, _ in near.find(query, COUNT + 1) if number != own][:COUNT]
        if want:
            shares.append(len(set(want) & set(got)) / len(want))
    return float(np.mean(shares)) if shares else 1.0


def _write(graph: Graph, index: Index, state: str) -> None:
    """The index notes first that what will be there is its own."""
    path = near_file(index.path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        graph.save(str(draft))
        with draft.open("rb") as file:
            os.fsync(file.fileno())  # before anything says that it is there
        index.note(NOTE, state)
        draft.replace(path)
    except (OSError, RuntimeError) as error:  # usearch has no kind of its own
        raise ResourceError(f"cannot write `{path}`: {error}") from error
    finally:
        draft.unlink(missing_ok=True)
