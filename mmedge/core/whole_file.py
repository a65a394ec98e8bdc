"""Writing one file so that whoever reads it finds the old content or the new one, whole, whatever happens."""

from __future__ import annotations

import os
from pathlib import Path

from mmedge.errors import UsageError


def write_whole(path: Path, content: bytes) -> None:
    """Write beside ``path``, flush to the disk, and move into place; only a killed process can leave its draft.

    Raises:
        UsageError: ``path`` is a link, a folder or anything else that is no file, or its folder refuses.
        OSError: the disk is full or broken.
    """
    check_place(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise _refused(path, (error.strerror or "the system refuses").lower()) from error
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def check_place(path: Path) -> None:
    """Refuse before the work starts a place where `write_whole` would refuse.

    Raises:
        UsageError: naming what is there.
    """
    if path.is_symlink():
        raise _refused(path, "it is a link", "name the file itself")
    if path.is_dir():
        raise _refused(path, "it is a folder", f"name a file in it, such as {path / 'run.json'}")
    if os.path.lexists(path) and not path.is_file():
        raise _refused(path, "it is neither a file nor a folder")
    if not path.parent.exists():
        raise _refused(path, f"there is no folder `{path.parent}`", f"mkdir -p {path.parent}")
    if not path.parent.is_dir():
        raise _refused(path, f"`{path.parent}` is no folder")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _refused(path, "permission denied")
    draft = f".{path.name}.{1 << 22}"  # the largest number of a process
    if len(os.fsencode(draft)) > (longest := os.pathconf(path.parent, "PC_NAME_MAX")):
        raise _refused(path, f"its name has more than {longest - (len(draft) - len(path.name))} bytes")


def _refused(path: Path, reason: str, hint: str | None = None) -> UsageError:
    return UsageError(f"cannot write `{path}`: {reason}", hint=hint)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
