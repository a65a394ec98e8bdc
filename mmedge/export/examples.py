"""Requests an export is judged by: some of the user's own samples, and pictures that no model was traced with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmedge.core.family import Request
from mmedge.core.samples import Sample, choose_samples
from mmedge.errors import InputError
from mmedge.media.image import decode_picture, read_picture

EXAMPLES = 8
JUDGED = 6
"""How many of the examples are the user's samples, if there are any; the others are drawn."""

LONGEST_SIDE = 512
"""Pixels; recorded pictures travel in the bundle, so they are kept small."""

SIZES = ((97, 61), (61, 97), (256, 256), (320, 40), (24, 24), (333, 500))
"""Width and height of the made pictures: odd, long, smaller and larger than models read."""

SKIP = "mend or remove it, or leave out a share of the samples that cannot be read with --skip-bad 0.05"

QUESTION = "what is in the picture?"
TEXTS = (
    "a photo of a cat",
    "two red bicycles leaning against the wall of an old brick house",
    "rain",
    "Ein Käse auf dem Tisch, 3 für 4,50 €",
    "a diagram",
    "夜の街",
    "the same text again and again, again and again, and once more",
    "?",
)
"""Of models that embed: short, long, and in other alphabets, each of a length of its own."""


@dataclass(frozen=True)
class Example:
    """One request: a picture as a PNG file of its own, and the text that goes with it."""

    name: str
    task: str
    picture: Path
    text: str | None

    def request(self) -> Request:
        """With the decoded picture."""
        return Request((decode_picture(read_picture(self.picture), self.name).pixels,), self.text)


def text_of(task: str, sample: Sample | None, index: int) -> str | None:
    """What goes with the picture of a sample, or with number ``index`` of those that are drawn."""
    question, caption = (sample.question, sample.caption) if sample else (None, None)
    if task == "embed":
        return caption or question or TEXTS[index % len(TEXTS)]
    return (question or QUESTION) if task == "ask" else None


def hold_out(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Sample, ...], tuple[str, ...]]:
    """Samples to be judged by, those left to calibrate with, and a warning where there are too few to part them."""
    judged = choose_samples(samples, JUDGED) if samples else ()
    if len(samples) < 4 * JUDGED:
        few = f"judged on calibration samples: {len(samples)} are too few to hold some out, {4 * JUDGED} would do"
        return judged, tuple(samples), (few,) if samples else ()
    return judged, tuple(sample for sample in samples if sample not in judged), ()


def make_examples(
    samples: Sequence[Sample], tasks: Sequence[str], folder: Path, count: int = EXAMPLES, *, skip_bad: bool = False
) -> tuple[Example, ...]:
    """``count`` requests as PNG files in ``folder``, tasks in turn: the samples, then pictures drawn from a seed.

    Raises:
        InputError: a sample's picture cannot be read; with ``skip_bad`` one is drawn in its place.
    """
    chosen = [*samples, *[None] * (count - len(samples))]
    return tuple(_example(index, sample, tasks, folder, skip_bad) for index, sample in enumerate(chosen))


def _example(index: int, sample: Sample | None, tasks: Sequence[str], folder: Path, skip_bad: bool) -> Example:
    task = tasks[index % len(tasks)]
    picture = folder / f"{index}.png"
    try:
        image = _small(sample) if sample else _drawn(index)
    except InputError as error:
        if not skip_bad:
            raise InputError(error.message, hint=error.hint or SKIP) from error
        return _example(index, None, tasks, folder, skip_bad)
    image.save(picture)
    return Example(sample.id if sample else f"drawn {index}", task, picture, text_of(task, sample, index))


def _small(sample: Sample) -> Image.Image:
    image = Image.fromarray(decode_picture(read_picture(sample.image), str(sample.image)).pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image


def _drawn(seed: int) -> Image.Image:
    """Smooth colour with a few hard edges and some noise."""
    width, height = SIZES[seed % len(SIZES)]
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(2 * np.pi * (a * rows + b * columns) + c) for a, b, c in generator.uniform(0, 2, (3, 3))]
    pixels = 127 + 90 * np.stack(waves, axis=-1) + generator.normal(0, 8, (height, width, 3))
    top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
    pixels[top : top + height // 3, left : left + width // 3] = generator.integers(0, 256, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
