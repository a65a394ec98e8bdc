"""Recorded requests: what the bundle was fed and answered when it was made, to be compared with what a device gives."""

from __future__ import annotations

import io
import zipfile
from typing import NamedTuple

import numpy as np

from mmedge.core.family import Prompt
from mmedge.core.ports import Tensors
from mmedge.errors import BundleError
from mmedge.runtime.decode import decode
from mmedge.runtime.engine import Engine
from mmedge.runtime.pick import greedy

MOST_ELEMENTS = 4096
"""Of an output; a longer one is recorded as every k-th element (the cross-attention of BLIP-base alone is 42 MB)."""

LIMIT = 16
"""Tokens of a recorded answer."""


class Record(NamedTuple):
    """An answer as numbers: sampled outputs by ``component/port`` (a decoder's of its first run), and tokens."""

    outputs: Tensors
    tokens: tuple[int, ...]


def record(engine: Engine, prompt: Prompt) -> Record:
    """Answer greedily and keep what every graph said."""
    values = engine.encode(prompt.feeds)
    engine.begin(values)
    first: Tensors = {}

    def step(tokens: np.ndarray, positions: np.ndarray) -> np.ndarray:
        logits = engine.step(tokens, positions)
        first.setdefault("logits", logits)
        return logits

    limit = min(LIMIT, prompt.capacity - len(prompt.tokens))
    tokens = tuple(decode(step, prompt.tokens, pick=greedy, stop=prompt.stop, limit=limit))
    named = {f"{graph.component}/{port.name}": values[port.name] for graph in engine.once for port in graph.outputs}
    named |= {f"{graph.component}/logits": first["logits"] for graph in engine.each_step if graph.cache}
    return Record({name: thinned(tensor) for name, tensor in named.items()}, tokens)


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
        BundleError: it is damaged, compressed (a bomb could be), or holds anything but plain arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("compressed")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {key.replace(":", "/"): arrays[key] for key in arrays.files}
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"`{name}` holds no plain arrays", hint="export the bundle again") from error
