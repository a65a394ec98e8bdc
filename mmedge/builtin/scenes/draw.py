"""Seeded 96x96 pictures of a few shapes or one handwritten digit, each with its caption and questions.

A seed is the whole scene: the same seed gives the same picture, caption and questions on every machine.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

PICTURE = 96  # pixels, width and height
MARGIN = 12  # pixels by which "left of" and "above" are decided, so that no caption is a close call
SPLITS = {
    "training": range(10_000_000),
    "validation": range(10_000_000, 11_000_000),
    "calibration": range(11_000_000, 12_000_000),
    "held-out": range(12_000_000, 13_000_000),
}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KINDS = {"digit": 12, "one": 28, "two": 30, "three": 30}  # how many in 100 pictures show what
RADII = {"small": (9.0, 11.0), "big": (16.0, 18.0)}  # pixels, of the circle around the shape
COLOURS = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (245, 225, 45),
    "green": (50, 175, 65),
    "blue": (45, 90, 230),
    "purple": (145, 50, 190),
    "pink": (250, 145, 195),
    "white": (245, 245, 245),
}


def _polar(*radii: float, points: int) -> np.ndarray:
    """Corners [points, 2] around the origin, the first one straight up, their radii taken in turn."""
    angles = np.arange(points) * 2 * math.pi / points
    reach = np.resize(np.array(radii), points)
    return np.stack([reach * np.sin(angles), -reach * np.cos(angles)], axis=1)


def _heart() -> np.ndarray:
    angles = np.arange(40) * 2 * math.pi / 40
    across = 16 * np.sin(angles) ** 3
    down = -13 * np.cos(angles) + 5 * np.cos(2 * angles) + 2 * np.cos(3 * angles) + np.cos(4 * angles)
    return np.stack([across, down], axis=1) / 17


OUTLINES = {  # within the unit circle, y pointing down
    "circle": _polar(0.95, points=40),
    "ring": _polar(1.0, points=40),
    "square": _polar(1.0, points=4) @ np.array([[1, 1], [-1, 1]]) / math.sqrt(2),
    "triangle": _polar(1.0, points=3),
    "star": _polar(1.0, 0.42, points=10),
    "heart": _heart(),
    "cross": np.array(
        [(-3, -9), (3, -9), (3, -3), (9, -3), (9, 3), (3, 3), (3, 9), (-3, 9), (-3, 3), (-9, 3), (-9, -3), (-3, -3)]
    )
    / 9.5,
}
HOLES = {"ring": _polar(0.52, points=40)}
SHAPES = tuple(OUTLINES)


@dataclass(frozen=True)
class Thing:
    """A shape or a handwritten digit in the picture; lengths in pixels, tilt in degrees."""

    shape: str  # one of SHAPES, or the digit as a word
    colour: str
    size: str
    x: float
    y: float
    radius: float
    tilt: float
    tint: tuple[int, int, int]
    sample: int = -1  # which handwritten digit of the collection, for digits only

    @property
    def words(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in the order in which its caption names it."""

    seed: int
    things: tuple[Thing, ...]

    @property
    def kind(self) -> str:
        return "digit" if self.things[0].sample >= 0 else NUMBERS[len(self.things)]


class Drawing(NamedTuple):
    """A picture with its caption and its (question, answer) pairs."""

    image: Image.Image
    caption: str
    questions: list[tuple[str, str]]


def draw(seed: int, *, digits: bool = True) -> Drawing:
    """The picture of a seed with its caption and its questions; without ``digits``, scikit-learn is not needed."""
    scene = imagine(seed, KINDS if digits else KINDS | {"digit": 0})
    return Drawing(paint(scene), caption(scene), questions(scene))


# Scenes


def imagine(seed: int, kinds: Mapping[str, int] = KINDS) -> Scene:
    """One to three shapes, no two alike in colour and shape, or one handwritten digit: as often as ``kinds`` says."""
    chance = random.Random(seed)
    kind = chance.choices(tuple(kinds), tuple(kinds.values()))[0]
    if kind == "digit":
        return Scene(seed, (_some_digit(chance, seed, radius=chance.uniform(22, 38)),))
    return Scene(seed, in_caption_order(_arranged(chance, NUMBERS.index(kind))))


def crowd(seed: int) -> Scene:
    """A picture full of shapes, or of four digits: nothing to describe, but much to recognise while training."""
    chance = random.Random(seed)
    if chance.random() < 0.2:
        corners = [(x, y) for x in (24, 72) for y in (24, 72)]
        return Scene(seed, tuple(_at(_some_digit(chance, seed, chance.uniform(20, 24)), x, y) for x, y in corners))
    things: list[Thing] = []
    for _ in range(60):
        thing = _somewhere(chance, _some_shape(chance))
        if _free(thing, things):
            things.append(thing)
    return Scene(seed, tuple(things))


def split_of(seed: int) -> str:
    """Which of SPLITS a seed belongs to."""
    for split, seeds in SPLITS.items():
        if seed in seeds:
            return split
    raise ValueError(f"seed {seed} is outside every split: choose one below {SPLITS['held-out'].stop}")


def in_caption_order(things: Sequence[Thing]) -> tuple[Thing, ...]:
    """Left to right, except two shapes that are rather one above the other: top to bottom."""
    if len(things) == 2 and relation(*things) == "above":
        return tuple(sorted(things, key=lambda thing: thing.y))
    return tuple(sorted(things, key=lambda thing: thing.x))


def relation(one: Thing, other: Thing) -> str:
    """``left of`` or ``above``, whichever direction separates the two more."""
    return "left of" if abs(one.x - other.x) > abs(one.y - other.y) else "above"


def _arranged(chance: random.Random, count: int) -> list[Thing]:
    """``count`` different shapes, apart from each other and clearly ordered."""
    things: list[Thing] = []
    while len(things) < count:
        thing = _some_shape(chance)
        if all((thing.shape, thing.colour) != (other.shape, other.colour) for other in things):
            things.append(thing)
    while True:
        placed = [_somewhere(chance, thing) for thing in things]
        if _clear(placed) and all(_free(thing, placed[:index]) for index, thing in enumerate(placed)):
            return placed


def _some_shape(chance: random.Random) -> Thing:
    size = chance.choice(tuple(RADII))
    colour = chance.choice(tuple(COLOURS))
    radius, tilt = chance.uniform(*RADII[size]), chance.uniform(-18, 18)
    return Thing(chance.choice(SHAPES), colour, size, 0, 0, radius, tilt, _tint(chance, colour))


def _some_digit(chance: random.Random, seed: int, radius: float) -> Thing:
    sample = chance.choice(_samples(split_of(seed)))
    colour = chance.choice(tuple(COLOURS))
    tint, tilt = _tint(chance, colour), chance.uniform(-10, 10)
    number = NUMBERS[_handwriting()[1][sample]]
    return _somewhere(chance, Thing(number, colour, "big", 0, 0, radius, tilt, tint, sample))


def _tint(chance: random.Random, colour: str) -> tuple[int, int, int]:
    red, green, blue = (min(255, max(0, level + chance.randint(-10, 10))) for level in COLOURS[colour])
    return red, green, blue


def _at(thing: Thing, x: float, y: float) -> Thing:
    return replace(thing, x=x, y=y)


def _somewhere(chance: random.Random, thing: Thing) -> Thing:
    low, high = thing.radius + 1, PICTURE - thing.radius - 1
    return _at(thing, chance.uniform(low, high), chance.uniform(low, high))


def _free(thing: Thing, others: Sequence[Thing]) -> bool:
    """Whether no other thing touches this one."""
    return all(math.hypot(thing.x - other.x, thing.y - other.y) > thing.radius + other.radius + 1 for other in others)


def _clear(things: Sequence[Thing]) -> bool:
    """Whether the order in which a caption names the things is beyond doubt."""
    if len(things) == 2:
        one, other = things
        return abs(abs(one.x - other.x) - abs(one.y - other.y)) >= MARGIN
    across = sorted(thing.x for thing in things)
    return all(right - left >= MARGIN for left, right in pairwise(across))


# Words


def caption(scene: Scene) -> str:
    """``a small red star left of a big blue ring``; ``the digit seven``."""
    if scene.kind == "digit":
        return f"the digit {scene.things[0].shape}"
    first, *rest = [with_article(thing.words) for thing in scene.things]
    if not rest:
        return first
    if len(rest) == 1:
        return f"{first} {relation(*scene.things)} {rest[0]}"
    return f"{first}, {rest[0]} and {rest[1]}"


def questions(scene: Scene) -> list[tuple[str, str]]:
    """Every question that has one right answer, with that answer."""
    if scene.kind == "digit":
        digit = scene.things[0]
        return [("which digit is this?", digit.shape), ("what colour is the digit?", digit.colour)]
    chance = random.Random(f"questions of {scene.seed}")
    pairs = [("how many shapes are there?", scene.kind)]
    for thing in scene.things:
        pairs += _about(thing, scene)
        pairs.append((f"is there {with_article(f'{thing.colour} {thing.shape}')}?", "yes"))
        pairs.append((f"is there {with_article(_missing(chance, thing, scene))}?", "no"))
    return pairs + list(_about_places(scene))


def question_kind(question: str) -> str:
    """What a question asks for: colour, shape, size, presence, count, place or digit."""
    openings = {
        "what colour": "colour",
        "what shape": "shape",
        "how many": "count",
        "is there": "presence",
        "which digit": "digit",
        "what is": "place",
    }
    return next((kind for opening, kind in openings.items() if question.startswith(opening)), "size")


def with_article(words: str) -> str:
    """``an orange star``, ``a red star``."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _about(thing: Thing, scene: Scene) -> Iterator[tuple[str, str]]:
    others = [other for other in scene.things if other is not thing]
    if all(thing.shape != other.shape for other in others):
        yield f"what colour is the {thing.shape}?", thing.colour
    elif all((thing.size, thing.shape) != (other.size, other.shape) for other in others):
        yield f"what colour is the {thing.size} {thing.shape}?", thing.colour
    if all(thing.colour != other.colour for other in others):
        yield f"what shape is {thing.colour}?", thing.shape
    yield f"is the {thing.colour} {thing.shape} big or small?", thing.size


def _about_places(scene: Scene) -> Iterator[tuple[str, str]]:
    """Neighbours of a thing, wherever only one thing lies on that side."""
    things = scene.things
    if len(things) == 1:
        return
    before, after = ("above", "below") if _stacked(scene) else ("left of", "right of")
    middle = things[1]
    yield f"what is {before} the {_name(middle, scene)}?", with_article(things[0].words)
    asked = things[0] if len(things) == 2 else middle
    yield f"what is {after} the {_name(asked, scene)}?", with_article(things[-1].words)


def _stacked(scene: Scene) -> bool:
    return len(scene.things) == 2 and relation(*scene.things) == "above"


def _name(thing: Thing, scene: Scene) -> str:
    """The shape, with its colour where the shape alone could mean another."""
    alone = sum(thing.shape == other.shape for other in scene.things) == 1
    return thing.shape if alone else f"{thing.colour} {thing.shape}"


def _missing(chance: random.Random, thing: Thing, scene: Scene) -> str:
    """A colour and shape that are not there together though one of them is, of this thing: no easy guess."""
    present = {(other.colour, other.shape) for other in scene.things}
    mixed = [(thing.colour, other.shape) for other in scene.things]
    single = [(thing.colour, chance.choice(SHAPES)), (chance.choice(tuple(COLOURS)), thing.shape)]
    candidates = [pair for pair in mixed + single if pair not in present]
    if not candidates:
        return _missing(chance, thing, scene)
    return " ".join(chance.choice(candidates))


# Pictures


def paint(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of PICTURE x PICTURE."""
    from PIL import Image

    return Image.fromarray(pixels(scene, [mask(thing) for thing in scene.things]))


def pixels(scene: Scene, masks: Sequence[np.ndarray]) -> np.ndarray:
    """The picture [height, width, 3] of 0..255, from the masks of its things."""
    chance = np.random.default_rng(scene.seed)
    canvas = _backdrop(chance)
    for thing, cover in zip(scene.things, masks, strict=True):
        canvas += (np.array(thing.tint, np.float32) - canvas) * cover[..., None]
    canvas += chance.standard_normal(canvas.shape, np.float32) * np.float32(chance.uniform(1, 6))
    return canvas.clip(0, 255).astype(np.uint8)


def mask(thing: Thing) -> np.ndarray:
    """How much of each pixel [height, width] a thing covers, 0..1."""
    cover = _digit_cover(thing) if thing.sample >= 0 else _shape_cover(thing)
    return cover.astype(np.float32) / 255


def _shape_cover(thing: Thing) -> np.ndarray:
    from PIL import Image, ImageDraw

    fine = Image.new("L", (2 * PICTURE, 2 * PICTURE))
    pen = ImageDraw.Draw(fine)
    pen.polygon(_corners(thing, OUTLINES[thing.shape]), fill=255)
    if thing.shape in HOLES:
        pen.polygon(_corners(thing, HOLES[thing.shape]), fill=0)
    return np.asarray(fine.reduce(2))


def _corners(thing: Thing, outline: np.ndarray) -> list[float]:
    """The outline turned and placed, in half pixels, as x, y, x, y ..."""
    turn = math.radians(thing.tilt)
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    placed: np.ndarray = outline @ rotation * thing.radius + (thing.x, thing.y)
    return [float(length) for length in 2 * placed.ravel()]


def _digit_cover(thing: Thing) -> np.ndarray:
    from PIL import Image

    side = round(2 * thing.radius)
    ink = Image.fromarray((_handwriting()[0][thing.sample] * 15.9).astype(np.uint8))
    ink = ink.resize((side, side), Image.Resampling.BICUBIC).rotate(thing.tilt, Image.Resampling.BICUBIC)
    cover = Image.new("L", (PICTURE, PICTURE))
    cover.paste(ink, (round(thing.x - thing.radius), round(thing.y - thing.radius)))
    return np.asarray(cover)


def _backdrop(chance: np.random.Generator) -> np.ndarray:
    """Two muted colours in a random pattern, [height, width, 3]."""
    colours = chance.uniform(30, 120, (2, 1)) + chance.uniform(-14, 14, (2, 3))
    blend = _PATTERNS[chance.integers(len(_PATTERNS))](chance)[..., None]
    pattern: np.ndarray = colours[0] * (1 - blend) + colours[1] * blend
    return pattern.astype(np.float32)


def _ramp(chance: np.random.Generator) -> np.ndarray:
    """Distance along a random direction in pixels, [height, width]."""
    angle = chance.uniform(0, 2 * math.pi)
    reach = np.arange(PICTURE) - PICTURE / 2
    return reach * math.cos(angle) + reach[:, None] * math.sin(angle)


def _plain(chance: np.random.Generator) -> np.ndarray:
    return np.zeros((PICTURE, PICTURE))


def _gradient(chance: np.random.Generator) -> np.ndarray:
    return (_ramp(chance) / PICTURE + 0.5).clip(0, 1)


def _stripes(chance: np.random.Generator) -> np.ndarray:
    return _ramp(chance) // chance.uniform(5, 16) % 2


def _checker(chance: np.random.Generator) -> np.ndarray:
    field = np.arange(PICTURE) // chance.integers(6, 20)
    return (field + field[:, None]) % 2


def _blobs(chance: np.random.Generator) -> np.ndarray:
    from PIL import Image

    coarse = Image.fromarray(chance.integers(0, 256, (6, 6), np.uint8))
    return np.asarray(coarse.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC)) / 255


_PATTERNS = (_plain, _gradient, _stripes, _checker, _blobs)


# Handwriting: 1797 digits of 8x8 pixels by 13 people, bundled with scikit-learn


@cache
def _handwriting() -> tuple[np.ndarray, np.ndarray]:
    """Ink [1797, 8, 8] of 0..16, and the digit that each is."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return bundle.images, bundle.target


@cache
def _samples(split: str) -> tuple[int, ...]:
    """Which handwritten digits a split may show: no digit serves two splits."""
    reserved = {"held-out": 0, "calibration": 1, "validation": 2}
    # 13 is coprime to 10: the collection counts 0, 1, 2 ... in long runs.
    turns = (index % 13 for index in range(len(_handwriting()[1])))
    return tuple(index for index, turn in enumerate(turns) if reserved.get(split, max(turn, 3)) == turn)
