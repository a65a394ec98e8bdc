"""Writing a bundle so that it is complete or absent, whatever happens on the way.

Files are collected in a temporary folder beside the target, flushed to the disk, and moved into place by one rename. An
existing bundle is exchanged with the new one by `renameat2`, so that at every moment one of the two stands there; only
a file system that cannot do that has a moment with none, and the old one is then put back by the next run.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec.structs

from mmedge.core.bundle import FILE_MODE, FOLDER_MODE, Bundle, File, Manifest, open_bundle, write_manifest
from mmedge.core.files import open_regular, sha256_of
from mmedge.core.lock import locked
from mmedge.core.place import check_vacant, place_for
from mmedge.errors import ResourceError

_MIB = 1 << 20
_SPARE = 1.2
"""Free disk asked for, as a multiple of what a bundle needs."""
_DISK_ERRORS = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS}
_NUMPY_WRITES = re.compile("^(problem writing element|[0-9]+ requested and [0-9]+ written)")
_CURRENT_FOLDER, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and the flag of Linux's renameat2


@dataclass(frozen=True)
class Draft:
    """A bundle in the making: put files into ``folder``, then call `finish`."""

    target: Path
    folder: Path
    force: bool

    def finish(self, manifest: Manifest) -> Bundle:
        """Move the bundle into place, with ``manifest`` as it is but for ``files``, which is filled in here.

        Raises:
            BundleError: it would be refused by `open_bundle` or `Bundle.verify`.
        """
        write_manifest(self.folder, msgspec.structs.replace(manifest, files=_settle_files(self.folder)))
        bundle = open_bundle(self.folder)
        bundle.verify()
        _settle_folders(self.folder)
        check_vacant(self.target, self.force)
        _move(self.folder, self.target)
        return dataclasses.replace(bundle, path=self.target)


@contextmanager
def new_bundle(path: Path, *, force: bool = False, source: Path | None = None) -> Iterator[Draft]:
    """Prepare the bundle ``path``; every refusal that is possible before the work starts is made here.

    Nothing is left of a draft that was not finished. With ``force`` an existing bundle is replaced, at the last moment.

    Args:
        path: where the bundle is to be, in a folder that exists.
        force: whether a bundle may be there already.
        source: the checkpoint it is made from, which must not be overwritten.

    Raises:
        UsageError: the path cannot be written to; another bundle is there.
        BusyError: another process is writing the same bundle.
        ResourceError: the disk is full or refuses.
    """
    target = place_for(path, source)
    with locked(target.with_name(f"{target.name}.lock"), target):
        _clean(target)
        check_vacant(target, force)
        folder = _beside(target, "tmp")
        try:
            folder.mkdir()
            yield Draft(target, folder, force)
        except OSError as error:
            if not _is_of_the_disk(error, target):
                raise
            raise _disk_error(error, target, _size(folder)) from error
        finally:
            _remove(folder)


def check_space(path: Path, needed: int) -> None:
    """Refuse before the work starts when the disk that ``path`` is to be on has less than 1.2 times ``needed`` bytes.

    Raises:
        ResourceError: naming what is needed and what is free.
    """
    free = _free(path)
    if free < needed * _SPARE:
        raise ResourceError(
            f"writing `{path}` needs {needed * _SPARE / _MIB:.1f} MiB, {free / _MIB:.1f} MiB are free there",
            hint="free some space, or choose another disk",
        )


def _settle_files(folder: Path) -> dict[str, File]:
    """Every file with its size and digest, on disk and readable by all when this returns."""
    paths = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return {name: _settle(folder, name) for name in sorted(path.relative_to(folder).as_posix() for path in paths)}


def _settle(folder: Path, name: str) -> File:
    with open_regular(folder, name) as file:
        os.fchmod(file.fileno(), FILE_MODE)
        os.fsync(file.fileno())
        return File(size=os.fstat(file.fileno()).st_size, sha256=sha256_of(file))


def _settle_folders(folder: Path) -> None:
    for place, _, _ in os.walk(folder, topdown=False):
        os.chmod(place, FOLDER_MODE)
        _sync_folder(Path(place))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move(folder: Path, target: Path) -> None:
    """Put ``folder`` where ``target`` is to be; a bundle that was there is in ``folder`` afterwards."""
    existed = os.path.lexists(target)
    if existed:
        _exchange(folder, target)
    else:
        os.rename(folder, target)
    try:
        _sync_folder(target.parent)
    except OSError:  # nobody knows what the disk will remember: back to what it knew
        if existed:
            _exchange(folder, target)
        else:
            os.rename(target, folder)
        raise


def _exchange(folder: Path, target: Path) -> None:
    """Swap two folders: in one step, or in three where the file system or the C library cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    places = (_CURRENT_FOLDER, os.fsencode(folder), _CURRENT_FOLDER, os.fsencode(target))
    if renameat2 and renameat2(*places, _RENAME_EXCHANGE) == 0:
        return
    if renameat2 and (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(number, os.strerror(number), str(target))
    aside = _beside(target, "old")
    os.rename(target, aside)
    os.rename(folder, target)
    os.rename(aside, folder)


def _clean(target: Path) -> None:
    """Remove what dead writers of the same bundle left: we hold the lock, so none of them is alive."""
    leftover = re.compile(re.escape(target.name) + r"\.(tmp|old)-[0-9]+-[0-9a-f]{8}")
    for path in target.parent.iterdir():
        kind = leftover.fullmatch(path.name)
        if kind and kind[1] == "old" and not os.path.lexists(target):
            path.rename(target)  # killed in the middle of the three steps of `_exchange`
        elif kind:
            _remove(path)


def _remove(folder: Path) -> None:
    """What cannot be removed now (the disk may be the very problem) is left to the next run."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:  # an impatient Ctrl-C should not leave half of it
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f"{target.name}.{kind}-{os.getpid()}-{os.urandom(4).hex()}")


def _is_of_the_disk(error: OSError, target: Path) -> bool:
    """Libraries that write by themselves lose the number of the error; `numpy.ndarray.tofile` tells what it was at."""
    if error.errno is not None:
        return error.errno in _DISK_ERRORS
    return _free(target) < _MIB or bool(_NUMPY_WRITES.search(str(error)))


def _disk_error(error: OSError, target: Path, written: int) -> ResourceError:
    place = f" at `{error.filename}`" if error.filename else ""
    return ResourceError(
        f"writing `{target}` failed{place}: {error.strerror or error}; "
        f"it needs more than {written / _MIB:.1f} MiB, {_free(target) / _MIB:.1f} MiB are free there",
        hint="free some space, or choose another disk",
    )


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def _free(path: Path) -> int:
    """Bytes that may still be written to the disk that ``path`` is on, or will be."""
    path = path.absolute()
    return shutil.disk_usage(next(place for place in (path, *path.parents) if os.path.exists(place))).free
