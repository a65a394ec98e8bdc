"""The folder that travels: opening it, and reading its files so that what is checked is what is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mmedge.core.files import open_folder, open_regular, refused, sha256_of
from mmedge.core.ledger import spent
from mmedge.core.manifest import (
    LARGEST_MANIFEST,
    MANIFEST,
    SCHEMA,
    SEAL,
    File,
    Form,
    Golden,
    Graph,
    Manifest,
    encode_manifest,
    parse_manifest,
)
from mmedge.core.names import check_utf8, folders_of, shown
from mmedge.core.onnx_file import data_files
from mmedge.errors import BundleError, UsageError

__all__ = ["MANIFEST", "SCHEMA", "SEAL", "Bundle", "File", "Form", "Golden", "Graph", "Manifest", "open_bundle"]

FILE_MODE, FOLDER_MODE = 0o644, 0o755
"""Everybody may read a bundle, whoever exported it with whatever umask."""
_THREADS = 4  # more of them wait for the disk


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest is sound; each of its files is checked when it is used."""

    path: Path
    manifest: Manifest
    digest: str
    """sha256 of the manifest, which lists the digest of every file: equal for equal bundles."""

    def read(self, name: str) -> bytes:
        """The content of a file; its digest is that of the very bytes returned.

        Raises:
            BundleError: the manifest does not list it, or it is not what the manifest says.
        """
        promise = self._promise(name)
        with spent("verify"), open_regular(self.path, name, promise.size) as file:
            content = file.read(promise.size + 1)
            self._compare(name, hashlib.sha256(content).hexdigest())
        return content

    def file(self, name: str) -> Path:
        """Where a file lies, for engines that open files themselves: checked as by `read`, and for a model with every
        file that it refers to. Who may write to the folder can still change it between this check and the engine.

        Raises:
            BundleError: as `read`, or the model refers to something that is no file of the bundle beside it.
        """
        with spent("verify"):
            for data in self._check(name):
                self._check(data)
        return self.path / name

    def verify(self, done: Callable[[str], None] = lambda name: None) -> None:
        """Check every file, and that there are no others; ``done`` hears each name from this thread.

        Raises:
            BundleError: naming the first file that is not as the manifest says.
        """
        self._check_listing()
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                for name, _ in zip(self.manifest.files, pool.map(self._check, self.manifest.files), strict=True):
                    done(name)
            finally:
                pool.shutdown(cancel_futures=True)

    def _check_listing(self) -> None:
        """Refuse whatever the manifest does not account for."""
        files = {MANIFEST, SEAL, *self.manifest.files}
        folders = {folder for name in files for folder in folders_of(name)}
        known = files | folders
        for folder in ("", *folders):
            with open_folder(self.path, folder) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if name not in known:
                        raise refused(self.path, name, "is not listed in the manifest")

    def _check(self, name: str) -> set[str]:
        """Compare a file with its promise; the files that it refers to, if it is a model."""
        if name.endswith(".onnx"):
            try:
                return data_files(self.read(name), name, self.manifest.files)
            except ValueError as error:
                raise refused(self.path, name, str(error)) from error
        with open_regular(self.path, name, self._promise(name).size) as file:
            self._compare(name, sha256_of(file))
        return set()

    def _promise(self, name: str) -> File:
        if name not in self.manifest.files:
            raise BundleError(f"bundle `{self.path}` has no file `{shown(name)}`")
        return self.manifest.files[name]

    def _compare(self, name: str, digest: str) -> None:
        if digest != (promised := self._promise(name).sha256):
            raise refused(self.path, name, f"is damaged: its sha256 is {digest}, the manifest says {promised}")


def open_bundle(path: Path) -> Bundle:
    """Open the bundle in the folder ``path``; of its files only the manifest and its seal are read.

    Raises:
        UsageError: there is no such folder, or its path is not UTF-8.
        BundleError: the manifest is missing, damaged or breaks a rule.
    """
    if not os.path.isdir(path):
        raise UsageError(f"there is no bundle at `{path}`", hint="a bundle is the folder that `mmedge export` writes")
    check_utf8(path.absolute())
    with open_regular(path, MANIFEST) as file:
        raw = file.read(LARGEST_MANIFEST + 1)
    manifest, digest = parse_manifest(raw, str(path / MANIFEST)), hashlib.sha256(raw).hexdigest()
    seal = seal_of(digest)
    with open_regular(path, SEAL) as file:
        if file.read(len(seal) + 1) != seal:
            raise refused(path, MANIFEST, f"is damaged: its sha256 is {digest}, {SEAL} says otherwise")
    return Bundle(path, manifest, digest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest and its seal into ``folder``, on disk when this returns.

    Raises:
        FileExistsError: there is one already.
    """
    raw = encode_manifest(manifest)
    for name, content in ((MANIFEST, raw), (SEAL, seal_of(hashlib.sha256(raw).hexdigest()))):
        with (folder / name).open("xb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), FILE_MODE)
            os.fsync(file.fileno())


def seal_of(digest: str) -> bytes:
    """As `sha256sum manifest.json` prints it, so that ``sha256sum -c`` reads it."""
    return f"{digest}  {MANIFEST}\n".encode()
