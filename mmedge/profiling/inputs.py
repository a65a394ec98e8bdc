"""What candidates are asked: a list or folder of pictures, a grid of sizes, or the golden samples of a bundle."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.names import shown
from mmedge.core.samples import Sample, read_samples
from mmedge.errors import InputError, UsageError
from mmedge.media.image import picture_size, read_picture
from mmedge.profiling.choosing import with_choices
from mmedge.profiling.run import Input, Inputs
from mmedge.profiling.tasks import TASKS

SYNTHETIC = "synthetic"
GRID = ((64, 64), (224, 224), (640, 480), (1280, 720), (1920, 1080), (4000, 3000))
"""Width and height of the pictures that are made where nobody says which."""
QUESTION = "what is in the picture?"
"""Where a bundle only answers questions, and nobody says which."""

_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


def inputs_of(
    bundles: Sequence[Path], source: str | None, task: str | None, folder: Path, most: int | None = None
) -> Inputs:
    """What every one of ``bundles`` can be asked.

    Args:
        bundles: all of them can do the task.
        source: a folder of pictures, a CSV or JSONL list (`core.samples`), ``synthetic`` or ``synthetic:WxH,WxH``;
            None takes the golden samples that all bundles have in common.
        task: a name of `TASKS`; None takes what golden samples and the rows of a list say: a row with a question and
            no caption is asked, where all bundles can.
        folder: where pictures are kept that have to be made.
        most: at most so many, spread evenly over all.

    Raises:
        InputError: the list or a sample in it cannot be used.
        UsageError: a bundle cannot do the task; there are no inputs that all have in common.
    """
    opened = [open_bundle(path) for path in bundles]
    if task and task not in TASKS:
        raise UsageError(f"there is no task `{shown(task)}`", hint=f"it is one of {', '.join(TASKS)}")
    _check_tasks(opened, task)
    _check_pictures(opened)
    items = with_choices(choose_inputs(list(_items(opened, source, task, folder)), most))
    return Inputs(source or "golden", _digest(items), tuple(map(_measured, items)))


def choose_inputs(items: Sequence[Input], most: int | None) -> Sequence[Input]:
    """At most ``most`` of them, spread evenly over all."""
    if most is None or most >= len(items):
        return items
    if most < 1:
        raise UsageError(f"{most} inputs are asked for, it must be at least 1", hint="without --most it is all of them")
    return [items[index * len(items) // most] for index in range(most)]


def _items(bundles: Sequence[Bundle], source: str | None, task: str | None, folder: Path) -> Iterator[Input]:
    if source is None:
        yield from _golden(bundles, task)
        return
    shared = _shared_tasks(bundles)
    made = source.partition(":")[0] == SYNTHETIC
    for sample in _synthetic(source, folder) if made else _listed(source):
        item = TASKS[task or (shared[0] if made else _task_of(sample, shared))](sample)
        yield replace(item, file=_text(Path(item.file)))


def _check_tasks(bundles: Sequence[Bundle], task: str | None) -> None:
    """Raises UsageError where they have no task in common, or not this one."""
    for bundle in bundles:
        if task and task not in bundle.manifest.tasks:
            tasks = ", ".join(bundle.manifest.tasks)
            raise UsageError(f"`{bundle.path}` cannot `{task}`", hint=f"it can: {tasks}")
    _shared_tasks(bundles)


def _check_pictures(bundles: Sequence[Bundle]) -> None:
    """Raises UsageError where a bundle cannot be shown pictures, which is all that is shown so far."""
    for bundle in bundles:
        if "image" not in find.family(bundle.manifest.family).reads(bundle.manifest.config):
            raise UsageError(f"`{bundle.path}` looks at no pictures, and only such bundles can be profiled so far")


def _task_of(sample: Sample, shared: Sequence[str]) -> str:
    """A row with nothing but a question is asked, every other one is what all bundles can do first."""
    only_asked = sample.question is not None and sample.caption is None
    return "ask" if only_asked and "ask" in shared else shared[0]


def _shared_tasks(bundles: Sequence[Bundle]) -> list[str]:
    shared = [task for task in TASKS if all(task in bundle.manifest.tasks for bundle in bundles)]
    if shared:
        return shared
    told = "; ".join(f"`{bundle.path}`: {', '.join(bundle.manifest.tasks)}" for bundle in bundles)
    raise UsageError("the bundles have no task in common", hint=f"profile those that do the same: {told}")


def _golden(bundles: Sequence[Bundle], task: str | None) -> Iterator[Input]:
    """The golden samples of the first bundle that every other one has too: same picture, same question."""
    known = [{_key(bundle, path, of, text) for path, of, text in _goldens(bundle)} for bundle in bundles]
    found = 0
    for path, of, text in _goldens(bundles[0]):
        if task in (None, of) and all(_key(bundles[0], path, of, text) in keys for keys in known):
            found += 1
            yield Input(path, of, _text(bundles[0].file(f"{path}/picture.png")), text)
    if not found and task and len(bundles) == 1:
        raise UsageError(f"`{bundles[0].path}` has no golden samples to `{task}`", hint="give --inputs")
    if not found:
        raise UsageError(
            f"{len(bundles)} bundles have no golden sample in common",
            hint="give --inputs FOLDER, or --inputs synthetic",
        )


def _goldens(bundle: Bundle) -> Iterator[tuple[str, str, str | None]]:
    return ((golden.path, golden.task, golden.question) for golden in bundle.manifest.golden)


def _key(bundle: Bundle, path: str, task: str, text: str | None) -> tuple[str, str, str | None]:
    return bundle.manifest.files[f"{path}/picture.png"].sha256, task, text


def _listed(source: str) -> tuple[Sample, ...]:
    path = Path(source)
    if not path.exists():
        raise InputError(
            f"there are no pictures at `{source}`", hint="name a folder, a .csv or .jsonl list, or `synthetic`"
        )
    return read_samples(path)


def _synthetic(source: str, folder: Path) -> Iterator[Sample]:
    """Pictures of given sizes, as JPEG: smooth shapes with some noise, as hard to decode as a photograph."""
    asked = source.partition(":")[2]
    sizes = [_size(text) for text in asked.split(",")] if asked else GRID
    for width, height in sizes:
        path = folder / f"{width}x{height}.jpg"
        _paint(path, width, height)
        yield Sample(f"{width}x{height}", path, QUESTION)


def _size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text.strip())
    if not found or not int(found[1]) or not int(found[2]):
        raise UsageError(f"`{shown(text)}` is no size of a picture", hint="--inputs synthetic:640x480,1920x1080")
    return int(found[1]), int(found[2])


def _paint(path: Path, width: int, height: int) -> None:
    from PIL import Image

    chance = np.random.default_rng(width * 100_000 + height)
    coarse = chance.integers(0, 256, (9, 12, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    noise = chance.integers(-12, 13, smooth.shape, np.int16)
    Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(path, quality=90)


def _measured(item: Input) -> Input:
    """With the features that its cost may depend on."""
    data = read_picture(Path(item.file))
    width, height = picture_size(data, item.file)
    size = {"width": width, "height": height, "megapixels": width * height / 1e6, "bytes": len(data)}
    words = {"prompt_characters": len(item.text)} if item.text else {}
    return replace(item, features={name: float(value) for name, value in (size | words).items()})


def _digest(items: Sequence[Input]) -> str:
    """Of the files' contents and the texts, whatever the files are called."""
    whole = hashlib.sha256()
    for item in items:
        whole.update(hashlib.sha256(read_picture(Path(item.file))).digest())
        whole.update(repr((item.task, item.text)).encode())
    return whole.hexdigest()


def _text(path: Path) -> str:
    """The path as a report can hold it."""
    try:
        return path.resolve().as_posix().encode().decode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of the picture `{shown(str(path))}` is not UTF-8", hint="rename it") from error
