"""Files and streams of which no more than a limit is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, TypeAlias

from mmedge.errors import InputError

Check: TypeAlias = Callable[[int, str], None]
"""``check(length, name)`` raises an InputError where so many bytes are too many."""


def read_file(path: Path, kind: str, limit: int, check: Check) -> bytes:
    """The bytes of a file of a ``kind``, such as ``picture``; nothing of an oversized one is read.

    Raises:
        InputError: it is no regular file, cannot be read, or is longer than ``limit``.
    """
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise InputError(f"the {kind} `{path}` is not a regular file", hint="name a file, or pipe the bytes in")
        check(status.st_size, str(path))
        with path.open("rb") as file:
            return read_stream(file, str(path), limit, check)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "this is not a path"
        raise InputError(f"cannot read the {kind} `{path}`: {reason.lower()}") from error


def read_stream(stream: BinaryIO, name: str, limit: int, check: Check) -> bytes:
    """All that comes, of which no more than ``limit`` bytes are held.

    Raises:
        InputError: there are more.
    """
    data = stream.read(limit + 1)
    check(len(data), name)
    return data
