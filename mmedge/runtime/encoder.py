"""A bundle ready to embed: pictures, texts, sounds and videos to rows that can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.core.bundle import Bundle, Graph, open_bundle
from mmedge.core.family import Prompt, Request
from mmedge.core.ports import Tensors
from mmedge.core.similarity import SUFFIX, Similarity
from mmedge.errors import BundleError, ContextError, QualityError, UsageError
from mmedge.runtime.clock import Clock
from mmedge.runtime.model import Model, check_task, open_model
from mmedge.runtime.subjects import SoundSource, Source, listen, look

TOGETHER = 8
"""Most inputs of one run."""


class Encoder(Model):
    """Embeds what its bundle can; made by `load_encoder`. All rows are float32 of length 1."""

    similarity: Similarity

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it embeds: ``image``, ``text``, ``audio``, ``video``."""
        return embedded_by(self.engine.graphs)

    @property
    def subject(self) -> str:
        """What texts are compared with."""
        return subject_of(self.modalities)

    def images(self, pictures: Iterable[Source], *, clock: Clock | None = None) -> np.ndarray:
        """float32 ``[pictures, width]``.

        Raises:
            InputError: a picture cannot be used.
            UsageError: the bundle embeds no pictures.
        """
        return self.embed("image", pictures, clock=clock)

    def sounds(self, sounds: Iterable[SoundSource], *, clock: Clock | None = None) -> np.ndarray:
        """float32 ``[sounds, width]``.

        Raises:
            InputError: a sound cannot be used.
            UsageError: the bundle embeds no sounds.
        """
        return self.embed("audio", sounds, clock=clock)

    def texts(self, texts: Iterable[str], *, clock: Clock | None = None) -> np.ndarray:
        """float32 ``[texts, width]``.

        Raises:
            InputError: a text is no Unicode, or too long.
            UsageError: the bundle embeds no texts.
        """
        return self.embed("text", texts, clock=clock)

    def embed(
        self, modality: str, sources: Iterable[Source | SoundSource], *, clock: Clock | None = None
    ) -> np.ndarray:
        """What each source of a modality means, float32 ``[sources, width]``; a few of them at once."""
        clock = clock or Clock()
        return self.run(modality, (self.prompt(modality, source, clock=clock) for source in sources), clock=clock)

    def prompt(self, modality: str, source: Source | SoundSource, *, clock: Clock | None = None) -> Prompt:
        """One source, read and prepared.

        Raises:
            InputError: it cannot be used.
            UsageError: the bundle embeds nothing of this modality.
        """
        if modality not in self.modalities:
            raise UsageError(f"this bundle does not embed `{modality}`", hint=f"it does: {', '.join(self.modalities)}")
        clock = clock or Clock()
        request = _request(modality, source, clock)
        with clock.stage("preprocess"):
            prompt = self.prepare(request)
        self._check_room(modality, prompt)
        return prompt

    def run(self, modality: str, prompts: Iterable[Prompt], *, clock: Clock | None = None) -> np.ndarray:
        """What prompts of a modality mean, float32 ``[prompts, width]``.

        Raises:
            QualityError: the engine makes something that is no number.
        """
        clock = clock or Clock()
        rows, waiting = [np.zeros((0, self.width), np.float32)], iter(prompts)
        while together := [prompt.feeds for prompt in islice(waiting, self._together(modality))]:
            with clock.stage("encode"):
                rows.append(self._run(modality, together))
        return np.concatenate(rows)

    def _run(self, modality: str, together: Sequence[Tensors]) -> np.ndarray:
        made = self.engine.encode(Prompt(stacked(together))).get(f"{modality}{SUFFIX}")
        if made is None:
            raise BundleError(f"the bundle's graphs make nothing of `{modality}`", hint="export it again")
        if not np.isfinite(made).all():
            engines = ", ".join(dict.fromkeys(self.backends.values()))
            raise QualityError(
                f"the embeddings of `{modality}` are not finite on {engines}",
                hint="choose another --backend, or export with a finer precision",
            )
        return made

    def _together(self, modality: str) -> int:
        """How many inputs the modality's graph takes at once."""
        spans = [
            each["batch"].largest for graph in self._graphs(modality) for each in graph.profiles if "batch" in each
        ]
        return min([TOGETHER, *spans])

    def _graphs(self, modality: str) -> list[Graph]:
        name = f"{modality}{SUFFIX}"
        return [graph for graph in self.engine.graphs if name in {port.name for port in graph.outputs}]

    def _check_room(self, modality: str, prompt: Prompt) -> None:
        """Raises ContextError where the bundle was made for shorter inputs than the model could read."""
        for graph in self._graphs(modality):
            for port in graph.inputs:
                for word, size in zip(port.shape, prompt.feeds.get(port.name, _NOTHING).shape, strict=False):
                    most = max((each[str(word)].largest for each in graph.profiles if word in each), default=size)
                    if word != "batch" and size > most:
                        raise ContextError(
                            f"`{port.name}` is {size} long, this bundle has room for {most}",
                            hint=f"shorten it, or export with a larger `{word}` in the recipe's `sizes`",
                        )

    @property
    def width(self) -> int:
        """Numbers in an embedding."""
        return width_of(self.engine.graphs)


def _request(modality: str, source: Any, clock: Clock) -> Request:
    if modality == "text":
        return Request(text=str(source))
    if modality == "audio":
        return Request(sounds=(listen(source, clock),))
    return Request((look(source, clock).pixels,))


_NOTHING = np.zeros(())


def width_of(graphs: Iterable[Graph]) -> int:
    """Numbers in the embeddings that these graphs make.

    Raises:
        BundleError: they make none, or not all alike.
    """
    ports = [port for graph in graphs for port in graph.outputs if port.name.endswith(SUFFIX)]
    widths = {port.shape[-1] for port in ports if len(port.shape) == 2}
    width = widths.pop() if len(widths) == 1 and all(len(port.shape) == 2 for port in ports) else None
    if not isinstance(width, int) or width < 1:
        raise BundleError("the bundle's graphs do not make embeddings of one width", hint="export it again")
    return width


def embedded_by(graphs: Iterable[Graph]) -> tuple[str, ...]:
    """The modalities that these graphs have embeddings of."""
    names = (port.name for graph in graphs for port in graph.outputs)
    return tuple(name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX))


def subject_of(modalities: Iterable[str]) -> str:
    """The first that is no text; pictures where there is nothing to compare."""
    return next((each for each in modalities if each != "text"), "image")


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


def open_encoder(bundle: Bundle, task: str = "embed", *, backend: str | None = None, threads: int = 0) -> Encoder:
    """As `mmedge.runtime.model.open_model`, to embed for this ``task``.

    Raises:
        UsageError: the bundle cannot do the task.
    """
    check_task(task, bundle.manifest.tasks)
    similarity = bundle.manifest.similarity
    width_of(bundle.manifest.graphs)
    if similarity is None or not np.isfinite([similarity.scale, similarity.bias]).all():
        raise BundleError(f"bundle `{bundle.path}` does not say how embeddings are compared", hint="export it again")
    encoder = open_model(bundle, Encoder, backend=backend, threads=threads)
    encoder.similarity = similarity
    return encoder
