"""Files that the kernel keeps in memory after they were read, so that reading them again costs nothing: dropped, read,
counted.

Dropping needs no rights (``posix_fadvise`` with DONTNEED), but it is only a wish: pages that another process has mapped
stay, and so do files that live in memory. What stayed is counted (``mincore``), where the kernel tells this user.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

_BLOCK = 1 << 20


class Cached(NamedTuple):
    """Of some files."""

    bytes: int
    """Their size, in whole pages."""
    resident: int | None
    """What of that is in memory; None where the kernel does not tell this user."""

    @property
    def share(self) -> float | None:
        if self.resident is None:
            return None
        return self.resident / self.bytes if self.bytes else 0.0


def files_in(folders: Iterable[Path]) -> list[Path]:
    """Every plain file in these folders, links left out."""
    return sorted(path for folder in folders for path in folder.rglob("*") if stat.S_ISREG(path.lstat().st_mode))


def drop(files: Iterable[Path]) -> Cached:
    """Have the kernel forget the files, after what was changed of them is on the disk; tells what is left in memory."""
    files = list(files)
    for descriptor in _opened(files):
        os.fsync(descriptor)  # only what is on the disk may be forgotten
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return cached(files)


def fill(files: Iterable[Path]) -> None:
    """Read the files, so that they are in memory."""
    block = bytearray(_BLOCK)
    for descriptor in _opened(files):
        while os.readv(descriptor, [block]):
            pass


def cached(files: Iterable[Path]) -> Cached:
    """How much of the files is in memory."""
    found = [_pages(descriptor) for descriptor in _opened(files)]
    known = [resident for _, resident in found if resident is not None]
    pages = sum(count for count, _ in found)
    return Cached(pages * mmap.PAGESIZE, sum(known) * mmap.PAGESIZE if len(known) == len(found) else None)


def _opened(files: Iterable[Path]) -> Iterator[int]:
    for file in files:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _pages(descriptor: int) -> tuple[int, int | None]:
    """Pages of a file, and those in memory."""
    status = os.fstat(descriptor)
    count = -(-status.st_size // mmap.PAGESIZE)
    if not count:
        return 0, 0
    if status.st_uid != os.geteuid() and not os.access(f"/proc/self/fd/{descriptor}", os.W_OK):
        return count, None  # then the kernel says that all of it is, to everyone (since Linux 5.2)
    marks = np.zeros(count, np.uint8)
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, np.uint8)
        library = ctypes.CDLL(None, use_errno=True)
        failed = library.mincore(
            ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(view)), ctypes.c_void_p(marks.ctypes.data)
        )
        del view  # it holds the mapping open
    return count, None if failed else int((marks & 1).sum())
