"""A bundle with everything that installs it, in one archive that is the same for the same content."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from msgspec import Struct

from mmedge.core.bundle import FILE_MODE, FOLDER_MODE, MANIFEST, SEAL, Bundle
from mmedge.core.files import open_regular, sha256_of
from mmedge.core.find import PACKAGE
from mmedge.core.names import folders_of
from mmedge.core.writing import check_space
from mmedge.errors import UsageError
from mmedge.runtime.own_wheel import FILE, own_wheel
from mmedge.runtime.wheels import Wheel, missing, wheel_of

_KINDS = PACKAGE / "packs"
_WHEN = 315_532_800  # 1980: some tools take nothing older for a date
_SCRIPT_MODE = 0o755
_BUNDLE = b"model.bundle"
"""What the files for a device call the bundle, which keeps its own name in the archive."""
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REQUIREMENTS = re.compile(r"requirements-(3\.\d+)\.txt")


class Packed(Struct, frozen=True):
    """An archive that was written."""

    path: str
    size: int
    sha256: str
    files: int
    wheels: int
    missing: dict[str, tuple[str, ...]]
    """By version of Python what of its requirements no wheel brings."""
    warnings: tuple[str, ...]


class _Entry(NamedTuple):
    """A file of the archive."""

    name: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    mode: int = FILE_MODE


def kinds() -> tuple[str, ...]:
    """Devices that there is a script for."""
    return tuple(sorted(path.name for path in _KINDS.iterdir() if path.is_dir()))


def pack(bundle: Bundle, kind: str, output: Path, *, wheels: Path | None = None, force: bool = False) -> Packed:
    """Write the tar archive ``output``: complete or not at all. Of ``captions.bundle`` it has the one folder
    ``captions-<kind>`` with ``captions.bundle`` inside; a name that a shell would not take as it is becomes ``model``.

    Args:
        bundle: is verified first.
        kind: one of `kinds`.
        output: the archive; with ``force`` a file that is there is replaced.
        wheels: a folder of wheels that travel along.

    Raises:
        UsageError: the path cannot be written, a wheel does not fit the device, or this mmedge is not installed.
        BundleError: a file of the bundle is not what its manifest says.
        ResourceError: the disk is full.
    """
    if kind not in kinds():
        raise UsageError(f"there is no script for `{kind}`", hint=f"known: {', '.join(kinds())}")
    target = _place(output, bundle, force)
    brought = _wheels(wheels)
    bundle.verify()
    name = _name(bundle)
    entries = [*_scripts(kind, name), *_of_bundle(bundle, name), *_of_wheels(wheels, brought)]
    check_space(target, sum(entry.size for entry in entries))
    _write(target, f"{name}-{kind}", entries)
    with target.open("rb") as file:
        digest = sha256_of(file)
    lacks = {python: missing(required, brought, python) for python, required in _requirements(kind).items()}
    warnings = (*_unlike(bundle, kind), *_lacking(lacks if brought else {}))
    return Packed(str(output), target.stat().st_size, digest, len(entries), len(brought), lacks, warnings)


def _name(bundle: Bundle) -> str:
    name = Path(os.path.abspath(bundle.path)).name.removesuffix(".bundle")
    return name if _PLAIN.fullmatch(name) else "model"


def _unlike(bundle: Bundle, kind: str) -> Iterator[str]:
    target = bundle.manifest.target
    if not any(f"{name}-".startswith(f"{kind}-") for name in (target.name, *target.aliases)):
        yield f"this bundle was made for {target.name}: it will run there on the CPU; export it with --target {kind}"


def _lacking(lacks: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """Wheels are for one version of Python or the other; those of one must be complete."""
    for python, names in lacks.items() if lacks and all(lacks.values()) else ():
        shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
        yield f"for Python {python} {len(names)} wheels are missing: {shown}"


def _place(output: Path, bundle: Bundle, force: bool) -> Path:
    target = Path(os.path.abspath(output))
    if not target.parent.is_dir():
        raise UsageError(f"cannot write `{output}`: `{target.parent}` is no folder")
    target = target.parent.resolve() / target.name
    inside = bundle.path.resolve()
    if inside in target.parents or target == inside:
        raise UsageError(f"cannot write `{output}`: it is inside the bundle")
    if os.path.lexists(target) and (target.is_symlink() or not target.is_file()):
        raise UsageError(f"cannot write `{output}`: it is a folder, a link or a device")
    if target.exists() and not force:
        raise UsageError(f"`{output}` exists already", hint="replace it with --force")
    return target


def _wheels(folder: Path | None) -> list[Wheel]:
    if folder is None:
        return []
    if not folder.is_dir():
        raise UsageError(f"there is no folder of wheels at `{folder}`")
    found = [wheel_of(path.name) for path in sorted(folder.glob("*.whl")) if path.is_file()]
    if not found:
        raise UsageError(f"there are no wheels in `{folder}`")
    return found


def _scripts(kind: str, name: str) -> Iterator[_Entry]:
    files = {file: content.replace(_BUNDLE, f"{name}.bundle".encode()) for file, content in _files_of(kind).items()}
    for file, content in {**files, FILE: own_wheel()}.items():
        mode = _SCRIPT_MODE if file.endswith(".sh") else FILE_MODE
        yield _Entry(file, len(content), partial(io.BytesIO, content), mode)


def _files_of(kind: str) -> dict[str, bytes]:
    """What ships with mmedge for this device."""
    return {path.name: path.read_bytes() for path in (_KINDS / kind).iterdir() if path.is_file()}


def _requirements(kind: str) -> dict[str, tuple[str, ...]]:
    """Pins by version of Python."""
    found = {}
    for name, content in sorted(_files_of(kind).items()):
        if version := _REQUIREMENTS.fullmatch(name):
            lines = content.decode().splitlines()
            found[version[1]] = tuple(line for line in lines if line and not line.startswith("#"))
    return found


def _of_bundle(bundle: Bundle, name: str) -> Iterator[_Entry]:
    for file in (MANIFEST, SEAL, *bundle.manifest.files):
        size = (bundle.path / file).stat().st_size
        yield _Entry(f"{name}.bundle/{file}", size, partial(open_regular, bundle.path, file, size))


def _of_wheels(folder: Path | None, wheels: list[Wheel]) -> Iterator[_Entry]:
    for path in (folder / wheel.file for wheel in wheels) if folder else ():
        yield _Entry(f"wheels/{path.name}", path.stat().st_size, partial(_reader, path))


def _reader(path: Path) -> IO[bytes]:
    return path.open("rb")


def _write(target: Path, top: str, entries: list[_Entry]) -> None:
    """Into a draft beside it, then by one rename."""
    draft = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with draft.open("xb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                _fill(archive, top, entries)
            file.flush()
            os.fchmod(file.fileno(), FILE_MODE)
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _fill(archive: tarfile.TarFile, top: str, entries: list[_Entry]) -> None:
    named = {f"{top}/{entry.name}": entry for entry in entries}
    folders = {folder for name in named for folder in folders_of(name)}
    for name in sorted({*named, *folders}):
        if entry := named.get(name):
            with entry.open() as file:
                archive.addfile(_header(name, tarfile.REGTYPE, entry.mode, entry.size), file)
        else:
            archive.addfile(_header(name, tarfile.DIRTYPE, FOLDER_MODE, 0))


def _header(name: str, kind: bytes, mode: int, size: int) -> tarfile.TarInfo:
    """Nothing of who packed it, where or when."""
    header = tarfile.TarInfo(name)
    header.type, header.mode, header.size, header.mtime = kind, mode, size, _WHEN
    return header
