"""Vectors as they are kept, in float32, float16, or int8 with a scale of its own for each, and the nearest of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmedge.errors import InputError

PRECISIONS = ("float32", "float16", "int8")


def encoded(embeddings: np.ndarray, precision: str) -> list[bytes]:
    """Vectors as they are kept."""
    if precision == "int8":
        scales = np.maximum(np.abs(embeddings).max(-1, keepdims=True), np.finfo(np.float32).tiny) / 127
        rounded = np.rint(embeddings / scales).astype(np.int8)
        pairs = zip(scales.astype("<f4"), rounded, strict=True)
        return [scale.tobytes() + row.tobytes() for scale, row in pairs]
    return [row.tobytes() for row in embeddings.astype({"float32": "<f4", "float16": "<f2"}[precision])]


LENGTHS = {"float32": lambda width: 4 * width, "float16": lambda width: 2 * width, "int8": lambda width: width + 4}
"""Bytes of a vector."""


def decoded(vectors: Sequence[bytes], precision: str, width: int) -> np.ndarray:
    """What was kept, float32 ``[n, width]`` of length 1: rounding has changed it a little."""
    length = LENGTHS[precision](width)
    raw = np.frombuffer(b"".join(vectors), np.uint8).reshape(len(vectors), length)
    if precision == "int8":
        rows = raw[:, 4:].view(np.int8).astype(np.float32)  # a scale does not change where a vector points
    else:
        rows = raw.view({"float32": "<f4", "float16": "<f2"}[precision]).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    np.divide(rows, lengths, out=rows, where=lengths > 0)
    return rows


def nearest(vectors: np.ndarray, query: np.ndarray, count: int) -> list[tuple[int, float]]:
    """The ``count`` rows of ``[n, width]`` that are nearest to ``query`` ``[width]`` and their cosines, the nearest
    first; all have length 1."""
    cosines = vectors @ query
    count = min(count, len(cosines))
    best = np.argpartition(-cosines, count - 1)[:count] if count else np.zeros(0, np.int64)
    order = best[np.lexsort((best, -cosines[best]))]
    return [(int(place), float(cosines[place])) for place in order]


def recall(exact: np.ndarray, kept: np.ndarray, queries: np.ndarray, count: int) -> float:
    """Of the ``count`` nearest by ``exact`` vectors, the share that is among as many nearest by ``kept`` ones; the mean
    over ``queries``, all float32 ``[n, width]``.

    Raises:
        InputError: there is nothing to search.
    """
    if not len(exact) or not len(queries):
        raise InputError("the recall of nothing cannot be told")
    shares = []
    for query in queries:
        want, got = ({place for place, _ in nearest(vectors, query, count)} for vectors in (exact, kept))
        shares.append(len(want & got) / len(want))
    return float(np.mean(shares))
