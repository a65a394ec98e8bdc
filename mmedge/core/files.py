"""The one way to open a file of a bundle: a plain file with a single name, reached without following any link.

Links and second names would let a file change, or be shared, behind the manifest's back; a FIFO would hang the engine
that opens it; and what is checked must be what is used, so the checks are made on the open file, not on its path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path

from mmedge.core.names import shown
from mmedge.errors import BundleError

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _ROOT | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK = 1 << 20

_REASONS = {
    errno.ENOENT: "is missing",
    errno.ELOOP: "is a link, not a regular file",
    errno.ENOTDIR: "lies in something that is a link or no folder",
    errno.ENXIO: "is a socket or device, not a regular file",
}


@contextmanager
def open_regular(root: Path, name: str, size: int | None = None) -> Iterator[BufferedReader]:
    """Open ``name`` (parts joined by ``/``) inside the folder ``root`` for reading.

    Raises:
        BundleError: it is missing, not a regular file, has a second name, or is not ``size`` bytes.
    """
    *folders, last = name.split("/")
    with ExitStack() as stack:
        with _reasons(root, name):
            descriptor = os.open(last, _FILE, dir_fd=_folder(root, folders, stack))
            stack.callback(os.close, descriptor)
        _check_kind(os.fstat(descriptor), size, root, name)
        yield stack.enter_context(open(descriptor, "rb", closefd=False))


@contextmanager
def open_folder(root: Path, name: str) -> Iterator[int]:
    """Descriptor of the folder ``name`` inside ``root``, of ``root`` itself for an empty name."""
    with ExitStack() as stack:
        with _reasons(root, name):
            folder = _folder(root, name.split("/") if name else [], stack)
        yield folder


def sha256_of(file: BufferedReader) -> str:
    """Digest of the rest of an open file; other threads run meanwhile."""
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    while count := file.readinto(block):
        digest.update(block[:count])
    return digest.hexdigest()


def refused(root: Path, name: str, reason: str) -> BundleError:
    """The error for a file of a bundle, naming it."""
    return BundleError(f"`{root / shown(name)}` {reason}", hint="copy or export the bundle again")


@contextmanager
def _reasons(root: Path, name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, f"cannot be opened: {error.strerror}")
        raise refused(root, name, reason) from error


def _folder(root: Path, parts: list[str], stack: ExitStack) -> int:
    folder = os.open(root, _ROOT)
    stack.callback(os.close, folder)
    for part in parts:
        folder = os.open(part, _FOLDER, dir_fd=folder)
        stack.callback(os.close, folder)
    return folder


def _check_kind(found: os.stat_result, size: int | None, root: Path, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise refused(root, name, "is not a regular file")
    if found.st_nlink != 1:
        raise refused(root, name, f"has {found.st_nlink} names (hard links), a file of a bundle has one")
    if size is not None and found.st_size != size:
        raise refused(root, name, f"is {found.st_size} bytes, the manifest says {size}")
