"""Which files of the machine are believed: those of this user or of root, and as they were when they were noted."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

Stamp = tuple[int, int, int]
"""Size, inode and time of last change (ns) of a file. Nobody can set the last two, unlike its times of writing."""


def check_place(place: Path) -> None:
    """
    Raises:
        OSError: it is no folder, belongs to someone else, or takes no files.
    """
    if not stat.S_ISDIR(place.lstat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is no folder")
    if not trusted(place):
        raise PermissionError(errno.EPERM, "it belongs to another user")
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it cannot be written")


def trusted(path: Path) -> bool:
    """Whether it belongs to this user or to root; a link counts for itself."""
    return path.lstat().st_uid in (0, os.geteuid())


def stamp_of(path: Path) -> Stamp:
    """As it is now; of a link, its own."""
    found = path.lstat()
    return found.st_size, found.st_ino, found.st_ctime_ns
