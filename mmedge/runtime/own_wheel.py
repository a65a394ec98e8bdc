"""mmedge itself as a wheel, made of what is installed here: its own files and what its installer wrote of it.

Nothing is compressed, nothing is dated: the same files are the same wheel. Format: PyPA's "Binary distribution format".
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from mmedge import __version__
from mmedge.core import find
from mmedge.core.bundle import FILE_MODE
from mmedge.errors import UsageError

FILE = f"mmedge-{__version__}-py3-none-any.whl"
_INFO = f"mmedge-{__version__}.dist-info"
_FORMAT = b"Wheel-Version: 1.0\nGenerator: mmedge\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_WHEN = (1980, 1, 1, 0, 0, 0)  # the first moment that an archive of this format can name
_REGULAR_FILE = 0o100000
_KEPT = {"METADATA", "entry_points.txt", "licenses"}  # the rest is of this install, or made here


def own_wheel() -> bytes:
    """The wheel called `FILE`, for every Python and processor.

    Raises:
        UsageError: this mmedge is not installed, or is another version than the installed one.
    """
    files = {**dict(_package()), **dict(_information()), f"{_INFO}/WHEEL": _FORMAT}
    record = f"{_INFO}/RECORD"
    lines = [f"{name},{_digest(content)},{len(content)}\n" for name, content in sorted(files.items())]
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, content in (*sorted(files.items()), (record, "".join([*lines, f"{record},,\n"]).encode())):
            entry = zipfile.ZipInfo(name, _WHEN)
            entry.create_system, entry.external_attr = 3, (_REGULAR_FILE | FILE_MODE) << 16  # 3: modes as on Unix
            archive.writestr(entry, content)
    return whole.getvalue()


def _package() -> Iterator[tuple[str, bytes]]:
    """An editable install has recipes and calibration sets beside the package, a wheel has them inside."""
    yield from _files(find.PACKAGE, "mmedge")
    for kind in ("recipes", "calib"):
        yield from _files(find.data(kind), f"mmedge/{kind}")


def _files(folder: Path, name: str) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in parts):
            yield "/".join((name, *parts)), path.read_bytes()


def _information() -> Iterator[tuple[str, bytes]]:
    """What mmedge needs, its command and its licence."""
    try:
        installed = metadata.distribution("mmedge")
    except metadata.PackageNotFoundError:
        raise UsageError("mmedge is not installed, only found", hint="install it with pip, then pack again") from None
    if installed.version != __version__:
        raise UsageError(
            f"mmedge {installed.version} is installed, but this is {__version__}",
            hint="install it again with pip, then pack again",
        )
    for file in installed.files or ():
        folder, *rest = file.parts
        if folder == _INFO and rest[0] in _KEPT:
            yield "/".join((_INFO, *rest)), file.locate().read_bytes()  # type: ignore[attr-defined]


def _digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
