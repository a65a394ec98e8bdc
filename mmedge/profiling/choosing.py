"""What models that embed are asked: which of several texts a picture is most like.

So a quantized tower is judged by what it is for, the share of pictures that still find their own text (recall@1), and
not by cosines, which stay high long after the order of the nearest has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from mmedge.profiling.run import Input
from mmedge.runtime.classify import Labels, classify, embed_labels
from mmedge.runtime.clock import Clock
from mmedge.runtime.encoder import Encoder
from mmedge.runtime.pipeline import Answer, Piece

TASK = "embed"
BETWEEN = "\n"
"""Of texts to choose from: none has a line break in it."""
TOGETHER = 100
"""Inputs that choose from each other's texts: each carries them all."""
ITSELF = "{}"
"""The template of a text that is taken as it is."""


def with_choices(items: Sequence[Input]) -> list[Input]:
    """Each input that is to be embedded with the texts of `TOGETHER` of them, its own being the right answer."""
    found: list[Input] = []
    for begin in range(0, len(items), TOGETHER):
        found += _with_each_other(items[begin : begin + TOGETHER])
    return found


def _with_each_other(items: Sequence[Input]) -> list[Input]:
    own = [" ".join((item.text or "").split()) for item in items]
    texts = dict.fromkeys(text for item, text in zip(items, own, strict=True) if item.task == TASK and text)
    choices = BETWEEN.join(texts)
    return [
        replace(item, text=choices, expected=(text,) if text else ()) if item.task == TASK else item
        for item, text in zip(items, own, strict=True)
    ]


class Choosing:
    """An encoder as candidates are asked; what the texts mean is found out once."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._known: dict[str, Labels] = {}

    @property
    def backends(self) -> dict[str, str]:
        """By component."""
        return self.encoder.backends

    def answer(
        self,
        task: str,
        picture: bytes,
        text: str | None,
        *,
        limit: int | None = None,
        show: Callable[[Piece], None] | None = None,
        clock: Clock | None = None,
    ) -> Answer:
        """The text that the picture is most like; none where there is nothing to choose from."""
        clock = clock or Clock()
        embedded = self.encoder.images([picture], clock=clock)
        chosen = ""
        if text:
            labels = self._labels(text)
            with clock.stage("search"):
                chosen = classify(embedded, labels, self.encoder.similarity, 1)[0][0].label
        return Answer(chosen, (), "stop", clock.stages_ms)

    def close(self) -> None:
        """Give the engines' memory back."""
        self.encoder.close()

    def _labels(self, text: str) -> Labels:
        if text not in self._known:
            self._known[text] = embed_labels(self.encoder, text.split(BETWEEN), [ITSELF])
        return self._known[text]
