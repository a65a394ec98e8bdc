"""What an index is made of: pictures and sounds in folders, and texts, a line each.

Names are absolute, so that the same file has the same one wherever the command is run from.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from mmedge.core.names import readable
from mmedge.core.samples import PICTURES, SOUNDS
from mmedge.errors import InputError, UsageError
from mmedge.runtime.index import Item

ENDINGS = {**dict.fromkeys(PICTURES, "image"), **dict.fromkeys(SOUNDS, "audio"), ".txt": "text"}
"""Modality by the ending of a file, in small letters."""
Refuse = Callable[[str, InputError], None]
"""Hears the name of a file or folder that could not be looked at, and why; the others go on unless it raises."""
Key = tuple[str, str]
"""Name and modality of an item."""


class Found(Struct, frozen=True):
    """An item, and what is embedded: a file, whose path may be no text, or a text."""

    item: Item
    source: str

    @property
    def key(self) -> Key:
        return self.item.name, self.item.modality


def items_of(sources: Sequence[Path], modalities: Sequence[str], refuse: Refuse) -> list[Found]:
    """Everything in ``sources`` that is of these modalities, each once: files, folders with all that is in them except
    hidden files, and text files whose lines are texts.

    Raises:
        UsageError: a source is not there, or is of another kind.
    """
    found: dict[Key, Found] = {}
    for source in sources:
        for each in _of(source, modalities, refuse):
            found.setdefault(each.key, each)
    return list(found.values())


def gone(known: Mapping[Key, str], found: Collection[Key], sources: Sequence[Path], unseen: Sequence[str]) -> list[Key]:
    """What is known, with its state, to be of these sources, and is not among what was found, unless it lies in what
    could not be looked at."""
    places = [absolute(source) for source in sources]
    lost = ((key, state) for key, state in known.items() if key not in found)
    return [key for key, state in lost if _lies_in(key, state, places) and not _lies_in(key, state, unseen)]


def modality_of(path: Path) -> str | None:
    """By its ending."""
    return ENDINGS.get(path.suffix.lower())


def absolute(path: Path) -> str:
    """As names are written."""
    return readable(os.path.abspath(path))


def _of(source: Path, modalities: Sequence[str], refuse: Refuse) -> Iterator[Found]:
    path, modality = Path(os.path.abspath(source)), modality_of(source)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"there is no file or folder `{source}`") from None
    except OSError as error:
        refuse(absolute(path), _unseen(path, error))
        return
    if is_folder:
        yield from _files_of(path, modalities, refuse)
    elif modality is None or modality not in modalities:
        raise UsageError(f"`{source}` is nothing that this bundle embeds", hint=_readable(modalities))
    elif modality == "text":
        yield from _texts_of(path, refuse)
    else:
        yield from _file(path, modality, refuse)


def _files_of(folder: Path, modalities: Sequence[str], refuse: Refuse) -> Iterator[Found]:
    """Of a folder no texts: their lines would have no order among files."""

    def pass_over(error: OSError) -> None:
        refuse(absolute(Path(error.filename)), _unseen(error.filename, error))

    for root, folders, names in os.walk(folder, onerror=pass_over):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            modality = modality_of(path)
            if modality in modalities and modality not in ("text", None) and not name.startswith("."):
                yield from _file(path, str(modality), refuse)


def _file(path: Path, modality: str, refuse: Refuse) -> Iterator[Found]:
    name = absolute(path)
    try:
        status = path.stat()
    except OSError as error:  # a link to nothing, or it was there a moment ago
        refuse(name, _unseen(path, error))
        return
    if stat.S_ISREG(status.st_mode):
        yield Found(Item(name, modality, f"{status.st_size} {status.st_mtime_ns}"), str(path))


def _texts_of(path: Path, refuse: Refuse) -> Iterator[Found]:
    name = absolute(path)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        refuse(name, _unseen(path, error))
    except UnicodeDecodeError:
        refuse(name, InputError(f"cannot read the texts `{name}`: it is not UTF-8"))
    else:
        texts = filter(None, map(str.strip, lines))
        yield from (Found(Item(text, "text", name), text) for text in texts)


def _unseen(path: Path | str, error: OSError) -> InputError:
    reason = (error.strerror or str(error)).lower()
    return InputError(f"cannot look at `{readable(str(path))}`: {reason}")


def _lies_in(key: Key, state: str, places: Sequence[str]) -> bool:
    """A text is in the file that it was read from alone."""
    name, modality = key
    if modality == "text":
        return state in places
    return any(name == place or name.startswith(f"{place.rstrip('/')}/") for place in places)


def _readable(modalities: Sequence[str]) -> str:
    endings = (ending for ending, modality in ENDINGS.items() if modality in modalities)
    return f"it reads {', '.join(endings)}"
