"""Requests an export is judged by: some of the user's own samples, and pictures or sounds that no model was traced
with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmedge.core.family import Request, Sound
from mmedge.core.samples import Sample, choose_samples
from mmedge.errors import InputError
from mmedge.media.audio import resample
from mmedge.media.image import decode_picture, read_picture
from mmedge.runtime.golden import SOUND, sound_from_bytes, sound_to_bytes
from mmedge.runtime.subjects import listen

EXAMPLES = 8
JUDGED = 6
"""How many of the examples are the user's samples, if there are any; the others are drawn."""

LONGEST_SIDE = 512
"""Pixels; recorded pictures travel in the bundle, so they are kept small."""

SIZES = ((97, 61), (61, 97), (256, 256), (320, 40), (24, 24), (333, 500))
"""Width and height of the made pictures: odd, long, smaller and larger than models read."""

LONGEST_SECONDS = 15
SECONDS = (0.5, 3, 11, 1.5, 0.02, 10, 7, 15)
"""Of the made sounds: shorter and longer than models hear at once."""

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
    """One request: a picture as a PNG file of its own, or a sound as its samples, and the text that goes with it."""

    name: str
    task: str
    file: Path
    text: str | None

    @property
    def heard(self) -> bool:
        return self.file.name.endswith(SOUND)

    def sample(self) -> Sample:
        """To calibrate with."""
        image, audio = (None, self.file) if self.heard else (self.file, None)
        return Sample(self.name, image, self.text, audio=audio)

    def request(self) -> Request:
        """With the decoded picture or sound."""
        return request_of(self.sample(), self.text)


def request_of(sample: Sample, text: str | None) -> Request:
    """What is asked of a sample.

    Raises:
        InputError: its file cannot be read.
    """
    if sample.audio:
        return Request(text=text, sounds=(_heard(sample.audio),))
    return Request((decode_picture(read_picture(sample.file), sample.id).pixels,), text)


def _heard(path: Path) -> Sound:
    """One of our own, as samples, or an encoded one."""
    return sound_from_bytes(path.read_bytes(), str(path)) if path.name.endswith(SOUND) else listen(path)


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
    samples: Sequence[Sample],
    tasks: Sequence[str],
    folder: Path,
    count: int = EXAMPLES,
    *,
    skip_bad: bool = False,
    rate: int = 0,
) -> tuple[Example, ...]:
    """``count`` requests as files in ``folder``, tasks in turn: the samples, then pictures drawn from a seed; or sounds
    of this ``rate``, if it is not 0.

    Raises:
        InputError: a sample's file cannot be read; with ``skip_bad`` one is drawn in its place.
    """
    chosen = [*samples, *[None] * (count - len(samples))]
    return tuple(_example(index, sample, tasks, folder, skip_bad, rate) for index, sample in enumerate(chosen))


def _example(
    index: int, sample: Sample | None, tasks: Sequence[str], folder: Path, skip_bad: bool, rate: int
) -> Example:
    task = tasks[index % len(tasks)]
    write = _write_sound if rate else _write_picture
    try:
        file = write(folder / str(index), sample, index, rate)
    except InputError as error:
        if not skip_bad or not sample:
            raise InputError(error.message, hint=error.hint or SKIP) from error
        return _example(index, None, tasks, folder, skip_bad, rate)
    return Example(sample.id if sample else f"drawn {index}", task, file, text_of(task, sample, index))


def _write_picture(place: Path, sample: Sample | None, seed: int, _: int) -> Path:
    path = place.with_suffix(".png")
    (_small(sample) if sample else _drawn(seed)).save(path)
    return path


def _write_sound(place: Path, sample: Sample | None, seed: int, rate: int) -> Path:
    """At the model's own rate, so that a device need not change it to check the numbers."""
    path = place.with_name(f"{place.name}.{SOUND}")
    sound = resample(_heard(sample.file), rate) if sample else drawn_sound(seed, rate)
    path.write_bytes(sound_to_bytes(Sound(sound.samples[: LONGEST_SECONDS * rate], rate)))
    return path


def drawn_sound(seed: int, rate: int) -> Sound:
    """Tones that rise or fall and come and go, and some noise."""
    generator = np.random.default_rng(seed)
    times = np.arange(max(1, int(SECONDS[seed % len(SECONDS)] * rate))) / rate
    samples = generator.normal(0, 0.02, len(times))
    for low, glide, beat in generator.uniform((80, -0.1, 0.3), (rate / 8, 0.1, 6), (4, 3)):
        turns = low * (times + glide * times**2 / 2 / max(1, times[-1]))
        samples += 0.2 * np.sin(2 * np.pi * turns) * np.sin(np.pi * beat * times) ** 2
    return Sound(samples.clip(-1, 1).astype(np.float32), rate)


def _small(sample: Sample) -> Image.Image:
    image = Image.fromarray(decode_picture(read_picture(sample.file), str(sample.file)).pixels)
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
