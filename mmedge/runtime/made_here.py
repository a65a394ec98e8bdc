"""Files that are mapped into memory unchecked, and so are believed only where this user wrote them on this machine.

Of each a note is kept in the user's cache folder, and it holds while the file is the very one that was written: same
size, inode and time of last change. One that was changed, copied, or came from elsewhere has no such note.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from mmedge.core.files import open_regular
from mmedge.core.whole_file import write_whole
from mmedge.errors import BundleError, ResourceError, UsageError
from mmedge.runtime.kept import CHOSEN
from mmedge.runtime.owned import Stamp, check_place, stamp_of, trusted

_FOLDER = "near"
_LONGEST = 1 << 14


class Made(Struct, frozen=True, forbid_unknown_fields=True):
    """What was noted of a file."""

    stamp: Stamp
    of: str
    """What it was made of, in a word."""
    recall: float


def place_of_notes() -> Path:
    """The folder of the notes, made unless it is there: in the user's cache folder, or in that which ``MMEDGE_READY``
    names.

    Raises:
        ResourceError: it cannot be written.
    """
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_place(folder)
    except OSError as error:
        raise _refused(folder, (error.strerror or str(error)).lower()) from error
    return folder


def remember(path: Path, of: str, recall: float) -> None:
    """Note the file at ``path``, which this process just wrote.

    Raises:
        ResourceError: the note cannot be written.
    """
    folder = place_of_notes()
    try:
        write_whole(folder / _name(path), msgspec.json.encode(Made(stamp_of(path), of, recall)))
    except (UsageError, OSError) as error:
        raise _refused(folder, str(error)) from error


def remembered(path: Path) -> Made | None:
    """What was noted of the very file that is there now."""
    folder, name = _folder(), _name(path)
    try:
        with open_regular(folder, name) as file:
            made = msgspec.json.decode(file.read(_LONGEST), type=Made)
        believed = all(map(trusted, (folder, folder / name, path)))
        return made if believed and stamp_of(path) == made.stamp else None
    except (BundleError, OSError, msgspec.DecodeError):
        return None


def forget(path: Path) -> None:
    """Drop the note of a file that is to be removed."""
    with suppress(OSError):
        (_folder() / _name(path)).unlink()


def _folder() -> Path:
    if chosen := os.environ.get(CHOSEN):
        return Path(chosen).absolute() / _FOLDER
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # stays as it is without a home
    return Path(cache, "mmedge", _FOLDER).absolute()


def _name(path: Path) -> str:
    return f"{hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()}.json"


def _refused(folder: Path, reason: str) -> ResourceError:
    return ResourceError(
        f"cannot keep notes in `{folder}`: {reason}", hint="set XDG_CACHE_HOME to a folder that can be written"
    )
