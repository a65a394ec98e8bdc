"""The list of calibration samples: a folder of pictures, or a CSV or JSONL file that names them."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import msgspec
from msgspec import Struct

from mmedge.core import find
from mmedge.core.names import lowered, readable
from mmedge.errors import InputError

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
"""Endings of the files that a folder is searched for, in small letters."""

FEWEST = 8
"""Samples below which ranges are a matter of luck."""


class Sample(Struct, frozen=True):
    """A picture and what is said about it; ``id`` is how messages call it."""

    id: str
    image: Path
    question: str | None = None
    answer: str | None = None
    caption: str | None = None


class _Row(Struct, frozen=True):
    image: str
    question: str | None = None
    answer: str | None = None
    caption: str | None = None


def read_samples(files: str | Path, beside: Path | None = None) -> tuple[Sample, ...]:
    """The samples of a folder (all its pictures, sorted), or of a CSV or JSONL file in its order.

    A relative path is looked up in ``beside``, the folder of the recipe that says it, and then among mmedge's own sets;
    without ``beside`` it is the user's, in the working folder. Lists have a column ``image`` with paths relative to the
    list, and may have ``question``, ``answer`` and ``caption``; other columns are not read.

    Raises:
        InputError: naming the file, and the line if it is a list, that cannot be used.
    """
    path = _locate(Path(files), beside)
    samples = tuple(_folder_samples(path) if path.is_dir() else _list_samples(path))
    if not samples:
        raise InputError(f"`{path}` has no samples", hint=f"pictures end in {', '.join(PICTURES)}")
    return samples


def choose_samples(samples: Sequence[Sample], count: int) -> tuple[Sample, ...]:
    """At most ``count`` samples, spread evenly over all."""
    count = min(count, len(samples))
    return tuple(samples[index * len(samples) // count] for index in range(count))


def doubt_samples(samples: Sequence[Sample]) -> tuple[str, ...]:
    """Reasons why ranges taken from these samples may not hold."""
    doubts = []
    if len(samples) < FEWEST:
        doubts.append(
            f"calibration has {len(samples)} samples: use at least {FEWEST} that look like what the device sees"
        )
    prints = Counter(_fingerprint(sample) for sample in samples)
    if repeated := len(samples) - len(prints):
        first = next(sample for sample in samples if prints[_fingerprint(sample)] > 1)
        doubts.append(f"{repeated} of {len(samples)} calibration samples repeat others, such as `{first.id}`")
    return tuple(doubts)


def _fingerprint(sample: Sample) -> tuple[str, str | None]:
    """Equal for the same picture under two names; one that cannot be read is told about when it is used."""
    try:
        return hashlib.sha256(sample.image.read_bytes()).hexdigest(), sample.question
    except OSError:
        return str(sample.image), sample.question


def _locate(path: Path, beside: Path | None) -> Path:
    places = [path] if path.is_absolute() or beside is None else [beside / path, find.data("calib") / path]
    for place in places:
        if os.path.exists(place):  # and not if the system refuses to look, as for names that are too long
            return place
    looked = " and ".join(f"`{place}`" for place in places)
    raise InputError(f"calibration data `{path}` is not there: looked for {looked}")


def _folder_samples(folder: Path) -> Iterator[Sample]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if _is_picture(path))
    return (Sample(readable(name), folder / name) for name in names)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and not path.name.startswith(".") and not path.is_dir()


def _list_samples(path: Path) -> Iterator[Sample]:
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise InputError(f"`{path}` is no calibration data", hint="name a folder of pictures, a .csv or a .jsonl file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read `{path}`: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"`{path}` is not UTF-8 text: byte {error.start}") from error
    return (_sample(path, line, row) for line, row in read(path, text))


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, _Row]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_columns(path, reader.fieldnames or ())
        for row in reader:
            yield reader.line_num, _row(path, reader.line_num, row)
    except csv.Error as error:
        raise InputError(f"`{path}` line {reader.reader.line_num}: {error}") from error


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    if "image" not in columns:
        close = get_close_matches("image", columns, n=1)
        hint = f"rename the column `{close[0]}`" if close else f"its columns are {', '.join(columns) or 'none'}"
        raise InputError(f"`{path}` line 1: there is no column `image`", hint=hint)


def _row(path: Path, line: int, row: Mapping[str | None, object]) -> _Row:
    if None in row or None in row.values():
        raise InputError(f"`{path}` line {line}: the number of fields is not that of line 1")
    return msgspec.convert({name: value or None for name, value in row.items()} | {"image": row["image"]}, _Row)


def _jsonl_rows(path: Path, text: str) -> Iterator[tuple[int, _Row]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line, type=_Row)
            except msgspec.DecodeError as error:
                raise InputError(f"`{path}` line {number}: {lowered(str(error))}") from error


def _sample(path: Path, line: int, row: _Row) -> Sample:
    if not row.image:
        raise InputError(f"`{path}` line {line}: `image` is empty")
    image = path.parent / row.image
    try:
        missing = not image.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"`{path}` line {line}: `image` is not a path") from error
    if missing:
        raise InputError(f"`{path}` line {line}: there is no picture `{image}`")
    return Sample(f"{row.image}, line {line}", image, row.question, row.answer, row.caption)
