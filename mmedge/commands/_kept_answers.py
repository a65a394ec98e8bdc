"""Answers kept in a file, one JSON object a line, so that what was interrupted can go on."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from mmedge.core.lock import locked
from mmedge.core.whole_file import check_place
from mmedge.errors import UsageError

BEGINNING = b'{"picture":'
"""Of every line; by it the rest of a line that was being written is known when the power went."""


class KeptAnswers:
    """A file that answers are added to."""

    def __init__(self, path: Path, file: BinaryIO, about: Mapping[str, object], known: set[str]) -> None:
        self.path = path
        self.known = known
        """Pictures with an answer of the same bundle to the same text."""
        self._file = file
        self._about = about

    def add(self, picture: str, fields: Mapping[str, object]) -> None:
        """Write one line; it is on the disk when this returns."""
        self._file.write(msgspec.json.encode({"picture": picture, **self._about, **fields}) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class _Line(Struct):
    picture: str
    digest: str
    task: str
    prompt: str | None = None
    frames: int | None = None


@contextmanager
def keep_answers(path: Path, about: Mapping[str, object], *, resume: bool) -> Iterator[KeptAnswers]:
    """Open the file ``path`` to add answers; ``about`` has the bundle's digest, the task, the text and the frames of a
    video that are looked at, which every line says.

    Raises:
        UsageError: it has answers and none of them shall be resumed, or something else; or it cannot be written.
        BusyError: another process is adding to it.
    """
    check_place(path)
    with locked(path.with_name(f"{path.name}.lock"), path), path.open("a+b") as file:
        if not resume and file.tell():
            raise UsageError(f"`{path}` is there already", hint="--resume goes on with it; or remove it")
        yield KeptAnswers(path, file, about, _known(path, file, about))


def _known(path: Path, file: BinaryIO, about: Mapping[str, object]) -> set[str]:
    """Pictures that are answered; an end without a line break, left by a crash, is cut off."""
    known: set[str] = set()
    file.seek(0)
    for number, line in enumerate(file, start=1):
        if not line.endswith(b"\n"):
            _check_torn(path, number, line.rstrip(b"\0"))  # which some file systems leave
            file.truncate(file.tell() - len(line))
            break
        try:
            found = msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _foreign(path, number) from error
        if all(getattr(found, name) == value for name, value in about.items()):
            known.add(found.picture)
    return known


def _check_torn(path: Path, number: int, line: bytes) -> None:
    if not (line.startswith(BEGINNING) or BEGINNING.startswith(line)):
        raise _foreign(path, number)


def _foreign(path: Path, number: int) -> UsageError:
    return UsageError(f"`{path}` line {number} is no answer of mmedge", hint="name another file")
