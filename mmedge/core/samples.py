"""The list of calibration samples: a folder of pictures or sounds, or a CSV or JSONL file that names them."""

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
from mmedge.core.family import MODALITIES
from mmedge.core.names import lowered, readable
from mmedge.errors import InputError

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
"""Endings of the files that a folder is searched for, in small letters."""
SOUNDS = (".flac", ".mp3", ".ogg", ".wav")
ENDINGS = {"image": PICTURES, "audio": SOUNDS}

FEWEST = 8
"""Samples below which ranges are a matter of luck."""


class Sample(Struct, frozen=True):
    """A picture or a sound, and what is said about it; ``id`` is how messages call it."""

    id: str
    image: Path | None
    question: str | None = None
    answer: str | None = None
    caption: str | None = None
    audio: Path | None = None

    @property
    def file(self) -> Path:
        """What it is about."""
        found = self.image or self.audio
        assert found, f"the sample `{self.id}` is about nothing"
        return found


class _Row(Struct, frozen=True, kw_only=True):
    question: str | None = None
    answer: str | None = None
    caption: str | None = None


class _Picture(_Row, frozen=True, kw_only=True):
    image: str


class _Sound(_Row, frozen=True, kw_only=True):
    audio: str


NOTHING = _Row()
_ROWS: dict[str, type[_Row]] = {"image": _Picture, "audio": _Sound}


def read_samples(files: str | Path, beside: Path | None = None, *, modality: str = "image") -> tuple[Sample, ...]:
    """The samples of a folder (all its pictures, or its sounds where those are asked for, sorted), or of a CSV or JSONL
    file in its order.

    A relative path is looked up in ``beside``, the folder of the recipe that says it, and then among mmedge's own sets;
    without ``beside`` it is the user's, in the working folder. Lists have a column ``image`` or ``audio`` with paths
    relative to the list, and may have ``question``, ``answer`` and ``caption``; other columns are not read.

    Raises:
        InputError: naming the file, and the line if it is a list, that cannot be used.
    """
    path = _locate(Path(files), beside)
    samples = tuple(_folder_samples(path, modality) if path.is_dir() else _list_samples(path, modality))
    if not samples:
        hint = f"{MODALITIES[modality]} end in {', '.join(ENDINGS[modality])}"
        raise InputError(f"`{path}` has no samples", hint=hint)
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
    """Equal for the same file under two names; one that cannot be read is told about when it is used."""
    try:
        return hashlib.sha256(sample.file.read_bytes()).hexdigest(), sample.question
    except OSError:
        return str(sample.file), sample.question


def _locate(path: Path, beside: Path | None) -> Path:
    places = [path] if path.is_absolute() or beside is None else [beside / path, find.data("calib") / path]
    for place in places:
        if os.path.exists(place):  # and not if the system refuses to look, as for names that are too long
            return place
    looked = " and ".join(f"`{place}`" for place in places)
    raise InputError(f"calibration data `{path}` is not there: looked for {looked}")


def _folder_samples(folder: Path, modality: str) -> Iterator[Sample]:
    files = (path for path in folder.rglob("*") if _is_one(path, ENDINGS[modality]))
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    return (_about(modality, readable(name), folder / name) for name in names)


def _is_one(path: Path, endings: Sequence[str]) -> bool:
    return path.suffix.lower() in endings and not path.name.startswith(".") and not path.is_dir()


def _about(modality: str, name: str, file: Path, said: _Row = NOTHING) -> Sample:
    image, audio = (file if modality == each else None for each in ("image", "audio"))
    return Sample(name, image, said.question, said.answer, said.caption, audio)


def _list_samples(path: Path, modality: str) -> Iterator[Sample]:
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows}
    read = readers.get(path.suffix.lower())
    if read is None:
        raise InputError(
            f"`{path}` is no calibration data", hint=f"name a folder of {MODALITIES[modality]}, a .csv or a .jsonl file"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read `{path}`: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"`{path}` is not UTF-8 text: byte {error.start}") from error
    return (_sample(path, line, row, modality) for line, row in read(path, text, modality))


def _csv_rows(path: Path, text: str, modality: str) -> Iterator[tuple[int, _Row]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        _check_columns(path, reader.fieldnames or (), modality)
        for row in reader:
            yield reader.line_num, _row(path, reader.line_num, row, modality)
    except csv.Error as error:
        raise InputError(f"`{path}` line {reader.reader.line_num}: {error}") from error


def _check_columns(path: Path, columns: Sequence[str], modality: str) -> None:
    if modality not in columns:
        close = get_close_matches(modality, columns, n=1)
        hint = f"rename the column `{close[0]}`" if close else f"its columns are {', '.join(columns) or 'none'}"
        raise InputError(f"`{path}` line 1: there is no column `{modality}`", hint=hint)


def _row(path: Path, line: int, row: Mapping[str | None, object], modality: str) -> _Row:
    if None in row or None in row.values():
        raise InputError(f"`{path}` line {line}: the number of fields is not that of line 1")
    values = {name: value or None for name, value in row.items()} | {modality: row[modality]}
    return msgspec.convert(values, _ROWS[modality])


def _jsonl_rows(path: Path, text: str, modality: str) -> Iterator[tuple[int, _Row]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, msgspec.json.decode(line, type=_ROWS[modality])
            except msgspec.DecodeError as error:
                raise InputError(f"`{path}` line {number}: {lowered(str(error))}") from error


def _sample(path: Path, line: int, row: _Row, modality: str) -> Sample:
    name: str = getattr(row, modality)
    if not name:
        raise InputError(f"`{path}` line {line}: `{modality}` is empty")
    file = path.parent / name
    try:
        missing = not file.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"`{path}` line {line}: `{modality}` is not a path") from error
    if missing:
        raise InputError(f"`{path}` line {line}: there is no {MODALITIES[modality].removesuffix('s')} `{file}`")
    return _about(modality, f"{name}, line {line}", file, row)
