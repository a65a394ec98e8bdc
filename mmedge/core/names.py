"""How a file of a bundle may be called and how its digest is spelled: the one place that says so.

Lower case, digits, ``.``, ``_`` and ``-`` only, so that ``..``, absolute paths, backslashes, drive letters, control
characters and two names that a file system takes for one cannot be written at all.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mmedge.errors import UsageError

_NO_DEVICE = r"(?!(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:[./]|\Z))"
"""Windows opens a device for these, whatever their folder and suffix."""
_PART = _NO_DEVICE + r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9_-])?"
"""At most 64 characters. Not ending in a dot, which Windows would drop."""

_PLAIN_NAME = re.compile(_PART)
_FILE_NAME = re.compile(rf"{_PART}(?:/{_PART}){{0,7}}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_plain_name(text: str) -> bool:
    """Whether ``text`` may name a file inside its folder, or a component."""
    return _PLAIN_NAME.fullmatch(text) is not None


def is_file_name(text: str) -> bool:
    """Whether ``text`` may name a file of a bundle: up to eight plain names joined by ``/``."""
    return _FILE_NAME.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    """Whether ``text`` is a sha256 as `hashlib` spells it."""
    return _DIGEST.fullmatch(text) is not None


def folders_of(name: str) -> tuple[str, ...]:
    """The folders that a file lies in, outermost first."""
    parts = name.split("/")
    return tuple("/".join(parts[:end]) for end in range(1, len(parts)))


def readable(path: str) -> str:
    """A path as JSON can hold it: bytes that are no text are written as escapes."""
    return os.fsencode(path).decode(errors="backslashreplace")


def check_utf8(path: Path) -> None:
    """Refuse a path that engines, which open files by name, cannot be given.

    Raises:
        UsageError: the path has bytes that are no UTF-8.
    """
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        raise UsageError(
            f"the path `{readable(str(path))}` is not UTF-8, and engines open no other", hint="rename that folder"
        ) from None


def lowered(text: str) -> str:
    """What others say as it may stand behind a colon; an abbreviation stays as it is."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def shown(text: str, most: int = 80) -> str:
    """``text`` from a stranger as it may stand in an error message: one short line of printable ASCII."""
    line = ascii(text[:most])[1:-1]
    return line if len(line) <= most and len(text) <= most else f"{line[: most - 3]}..."
