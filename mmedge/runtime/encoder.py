"""A bundle ready to embed: pictures, texts, sounds and videos to rows that can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.family import Prompt, Request
from mmedge.core.ports import Tensors
from mmedge.core.similarity import Similarity
from mmedge.errors import BundleError, UsageError
from mmedge.runtime.clock import Clock
from mmedge.runtime.model import Model, open_model
from mmedge.runtime.subjects import Source, look

TOGETHER = 8
"""Most inputs of one run."""


class Encoder(Model):
    """Embeds what its bundle can; made by `load_encoder`. All rows are float32 of length 1."""

    similarity: Similarity

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it embeds: ``image``, ``text``, ``audio``, ``video``."""
        names = (port.name for graph in self.engine.graphs for port in graph.outputs)
        return tuple(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))

    def images(self, pictures: Iterable[Source], *, clock: Clock | None = None) -> np.ndarray:
        """float32 ``[pictures, width]``.

        Raises:
            InputError: a picture cannot be used.
            UsageError: the bundle embeds no pictures.
        """
        clock = clock or Clock()
        seen = (look(picture, clock).pixels for picture in pictures)
        return self._embed("image", (Request((pixels,)) for pixels in seen), clock)

    def texts(self, texts: Iterable[str], *, clock: Clock | None = None) -> np.ndarray:
        """float32 ``[texts, width]``.

        Raises:
            InputError: a text is no Unicode, or too long.
            UsageError: the bundle embeds no texts.
        """
        return self._embed("text", (Request(text=text) for text in texts), clock or Clock())

    def _embed(self, modality: str, requests: Iterable[Request], clock: Clock) -> np.ndarray:
        if modality not in self.modalities:
            raise UsageError(f"this bundle does not embed `{modality}`", hint=f"it does: {', '.join(self.modalities)}")
        rows: list[np.ndarray] = []
        waiting = iter(requests)
        while prompts := list(self._prepared(islice(waiting, TOGETHER), clock)):
            with clock.stage("encode"):
                rows.append(
                    self.engine.encode(Prompt(stacked([prompt.feeds for prompt in prompts])))[modality + SUFFIX]
                )
        return np.concatenate(rows) if rows else np.zeros((0, self._width(modality)), np.float32)

    def _prepared(self, requests: Iterable[Request], clock: Clock) -> Iterator[Prompt]:
        for request in requests:
            with clock.stage("preprocess"):
                yield self.prepare(request)

    def _width(self, modality: str) -> int:
        ports = (port for graph in self.engine.graphs for port in graph.outputs)
        return int(next(port.shape[-1] for port in ports if port.name == modality + SUFFIX))


SUFFIX = "_embeds"
"""Of outputs that are embeddings, after the modality."""


def stacked(feeds: Sequence[Tensors]) -> Tensors:
    """One batch of several inputs, each with a first axis of its own; shorter ones are filled up with zeros behind,
    which a mask or the end of a text keeps from counting."""
    return {name: np.concatenate(_as_long([each[name] for each in feeds])) for name in feeds[0]}


def _as_long(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    if len({array.shape[1:] for array in arrays}) == 1:
        return list(arrays)
    most = np.max([array.shape[1:] for array in arrays], axis=0)
    return [
        np.pad(array, [(0, 0), *((0, length - own) for length, own in zip(most, array.shape[1:], strict=True))])
        for array in arrays
    ]


def load_encoder(path: Path | str, *, backend: str | None = None, threads: int = 0) -> Encoder:
    """Open the bundle in the folder ``path`` on this device; see `open_encoder`."""
    return open_encoder(open_bundle(Path(path)), backend=backend, threads=threads)


def open_encoder(bundle: Bundle, *, backend: str | None = None, threads: int = 0) -> Encoder:
    """As `mmedge.runtime.model.open_model`.

    Raises:
        UsageError: the bundle embeds nothing.
    """
    if "embed" not in bundle.manifest.tasks:
        tasks = ", ".join(bundle.manifest.tasks)
        raise UsageError(f"the bundle `{bundle.path}` embeds nothing", hint=f"it can: {tasks}")
    if not (similarity := bundle.manifest.similarity):
        raise BundleError(f"bundle `{bundle.path}` does not say how embeddings are compared", hint="export it again")
    encoder = open_model(bundle, Encoder, backend=backend, threads=threads)
    encoder.similarity = similarity
    return encoder
