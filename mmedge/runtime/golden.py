"""Recorded requests: what the bundle was fed and answered when it was made, to be compared with what a device gives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmedge.core.family import Prompt
from mmedge.core.ports import Tensors
from mmedge.errors import BundleError
from mmedge.runtime.decode import decode, picking
from mmedge.runtime.engine import Engine

MOST_ELEMENTS = 4096
"""Of an output; a longer one is recorded as every k-th element (the cross-attention of BLIP-base alone is 42 MB)."""

LIMIT = 16
"""Tokens of a recorded answer."""


class Record(NamedTuple):
    """An answer as numbers: thinned outputs by ``component/port``, and the tokens chosen greedily.

    Of the decoder, ``decoder/logits`` is what it said after the prompt, and ``decoder/logits.last`` after the whole
    answer, where all of its cache counts.
    """

    outputs: Tensors
    tokens: tuple[int, ...]


def record(engine: Engine, prompt: Prompt, written: Sequence[int] | None = None) -> Record:
    """Answer greedily and keep what every graph said.

    The logits are those after reading ``written``, an answer recorded elsewhere, whatever this engine would choose;
    without it, after its own answer.
    """
    values = engine.encode(prompt.feeds)
    engine.begin(values)
    limit = min(LIMIT, prompt.capacity - len(prompt.tokens))
    tokens = tuple(decode(engine.choose, prompt.tokens, stop=prompt.stop, limit=limit))
    engine.begin(values)
    first, last = _read(engine, prompt.tokens, tokens if written is None else written)
    named = {f"{graph.component}/{port.name}": values[port.name] for graph in engine.once for port in graph.outputs}
    for graph in engine.each_step:
        if graph.cache:
            named |= {f"{graph.component}/logits": first, f"{graph.component}/logits.last": last}
    return Record({name: thinned(tensor) for name, tensor in named.items()}, tokens)


def _read(engine: Engine, prompt: np.ndarray, written: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits after the prompt, and after every token of ``written``, read one by one as if just chosen."""
    following = iter((*written, 0))
    steps: list[np.ndarray] = []

    def follow(logits: np.ndarray) -> int:
        steps.append(logits)
        return next(following)

    list(decode(picking(engine.step, follow), prompt, stop=(), limit=len(written) + 1))
    return steps[0], steps[-1]


def thinned(tensor: np.ndarray) -> np.ndarray:
    """At most `MOST_ELEMENTS` elements of ``tensor``, evenly spread over its flat form."""
    return tensor.ravel()[:: -(-tensor.size // MOST_ELEMENTS) or 1]


def to_bytes(tensors: Tensors) -> bytes:
    """As an uncompressed ``.npz``, the same bytes for the same tensors."""
    file = io.BytesIO()
    np.savez(file, **{name.replace("/", ":"): tensor for name, tensor in sorted(tensors.items())})  # type: ignore[arg-type]
    return file.getvalue()


def from_bytes(data: bytes, name: str) -> Tensors:
    """The tensors of an ``.npz`` of a bundle, which may come from anyone.

    Raises:
        BundleError: it is damaged, compressed (a bomb could be), encrypted, or holds anything but plain arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed")
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key.replace(":", "/"): file[key] for key in file.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):  # numpy hands out other files as bytes
            raise ValueError("not arrays")
        return arrays
    except Exception as error:  # zipfile and numpy raise nearly every kind there is on what a stranger wrote
        raise BundleError(f"`{name}` holds no plain arrays", hint="export the bundle again") from error
