"""What an index is made of: pictures and sounds in folders, and texts, a line each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmedge.core.names import readable
from mmedge.core.samples import PICTURES, SOUNDS
from mmedge.errors import InputError, UsageError
from mmedge.runtime.index import Item

ENDINGS = {**dict.fromkeys(PICTURES, "image"), **dict.fromkeys(SOUNDS, "audio"), ".txt": "text"}
"""Modality by the ending of a file, in small letters."""


def items_of(sources: Sequence[Path], modalities: Sequence[str]) -> Iterator[Item]:
    """Everything in ``sources`` that is of these modalities: files, folders with all that is in them, and text files
    whose lines are texts.

    Raises:
        UsageError: a source is not there, or is of another kind.
        InputError: a text file cannot be read.
    """
    for source in sources:
        if source.is_dir():
            yield from _files_of(source, modalities)
        elif not source.is_file():
            raise UsageError(f"there is no file or folder `{source}`")
        elif (modality := modality_of(source)) is None or modality not in modalities:
            raise UsageError(f"`{source}` is nothing that this bundle embeds", hint=_readable(modalities))
        elif modality == "text":
            yield from (Item(line, modality, "") for line in _lines_of(source))
        else:
            yield _item(source, modality)


def lies_in(key: tuple[str, str], sources: Sequence[Path]) -> bool:
    """Whether a file, by name and modality, would be found in these sources if it were still there."""
    name, modality = key
    return modality != "text" and any(Path(name).is_relative_to(source) for source in sources)


def modality_of(path: Path) -> str | None:
    """By its ending."""
    return ENDINGS.get(path.suffix.lower())


def _files_of(folder: Path, modalities: Sequence[str]) -> Iterator[Item]:
    """Of a folder no texts: their lines would have no order among files."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            modality = modality_of(path)
            if modality in modalities and modality not in ("text", None) and path.is_file():
                yield _item(path, str(modality))


def _item(path: Path, modality: str) -> Item:
    status = path.stat()
    return Item(readable(str(path)), modality, f"{status.st_size} {status.st_mtime_ns}")


def _lines_of(path: Path) -> list[str]:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"cannot read the texts `{path}`: {reason}") from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _readable(modalities: Sequence[str]) -> str:
    endings = (ending for ending, modality in ENDINGS.items() if modality in modalities)
    return f"it reads {', '.join(endings)}"
