"""Where a bundle may be written: every refusal that is possible before the work starts."""

from __future__ import annotations

import os
from pathlib import Path

from mmedge.core.bundle import open_bundle
from mmedge.core.names import check_utf8
from mmedge.errors import MmedgeError, UsageError

LONGEST_SUFFIX = len(".tmp-4194304-01234567")
"""What a writer appends to the name for its temporary folder: its process and a random number."""


def place_for(path: Path, source: Path | None) -> Path:
    """``path`` without links and dots, if a bundle could be there and would not touch the checkpoint ``source``.

    Raises:
        UsageError: naming the path and what is wrong with it.
    """
    target = Path(os.path.abspath(path))
    parent = target.parent
    if target == parent:
        raise UsageError(f"cannot write `{path}`: it is the root of the disk")
    if not os.path.isdir(parent):
        if os.path.exists(parent):
            raise UsageError(f"cannot write `{path}`: `{parent}` is not a folder")
        raise UsageError(f"cannot write `{path}`: `{parent}` does not exist", hint=f"mkdir -p {parent}")
    if len(os.fsencode(target.name)) + LONGEST_SUFFIX > (longest := os.pathconf(parent, "PC_NAME_MAX")):
        raise UsageError(f"cannot write `{path}`: its name has more than {longest - LONGEST_SUFFIX} bytes")
    target = parent.resolve() / target.name
    check_utf8(target)
    if source and (target in (inside := source.resolve(), *inside.parents) or inside in target.parents):
        raise UsageError(
            f"cannot write `{path}`: it would overwrite the checkpoint `{source}`", hint="choose a path outside of it"
        )
    return target


def check_vacant(target: Path, force: bool) -> None:
    """Refuse a place that is taken by anything; with ``force`` by anything but a bundle.

    Raises:
        UsageError: naming what is there.
    """
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"cannot write `{target}`: it is a file or a link")
    if not force:
        raise UsageError(f"`{target}` exists already", hint="replace it with --force")
    if any(target.iterdir()):
        _check_is_bundle(target)


def _check_is_bundle(target: Path) -> None:
    """``--force`` with a wrong path must not cost somebody's home folder."""
    try:
        open_bundle(target)
    except MmedgeError as error:
        raise UsageError(
            f"`{target}` is not replaced, because it does not look like a bundle: {error.message}",
            hint="remove it yourself if it may go",
        ) from error
