"""Where a checkpoint is: in a folder, inside mmedge, or on the Hub, from where it is fetched in two parts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmedge.core import find
from mmedge.errors import DownloadError, UsageError
from mmedge.export.weights import first_line, refuse_pickles

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model")
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def find_checkpoint(model: str, revision: str = "main") -> Path:
    """The folder of ``builtin:NAME``, of a local checkpoint, or of a Hub name: of that one only what is small is
    fetched, to the Hub's own cache; `fetch_weights` gets the rest when the plan stands.

    Raises:
        UsageError: it is none of these.
        DownloadError: the Hub has no such model or cannot be reached.
    """
    kind, _, name = model.partition(":")
    if kind == "builtin":
        known = {path.parent.name: path for path in sorted((find.PACKAGE / "builtin").glob("*/checkpoint"))}
        if name not in known:
            raise UsageError(f"no built-in model is called `{name}`", hint=f"known: {', '.join(known)}")
        return known[name]
    if os.path.isdir(model):  # which, unlike `Path.is_dir`, takes any text
        return Path(model).resolve()
    if os.path.exists(model):
        raise UsageError(f"`{model}` is a file, a checkpoint is a folder")
    if HUB_NAME.fullmatch(model):
        return _download(model, revision, SETTINGS, ignore=WEIGHTS)
    raise UsageError(f"`{model}` is no folder and no Hub name", hint="a Hub name looks like `owner/name`")


def fetch_weights(model: str, folder: Path) -> None:
    """Fetch the safetensors of a Hub checkpoint whose settings are in ``folder``; a local one has them.

    Raises:
        ModelError: it has pickles only.
        DownloadError: the Hub cannot be reached.
    """
    if model.startswith("builtin:") or os.path.isdir(model):
        return
    with _hub(model, folder.name):
        from huggingface_hub import list_repo_files

        refuse_pickles([Path(model, name) for name in list_repo_files(model, revision=folder.name)])
    _download(model, folder.name, WEIGHTS)


def _download(model: str, revision: str, wanted: tuple[str, ...], ignore: tuple[str, ...] = ()) -> Path:
    with _hub(model, revision):
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(model, revision=revision, allow_patterns=list(wanted), ignore_patterns=list(ignore))
        )


@contextmanager
def _hub(model: str, revision: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise DownloadError(
            f"cannot fetch `{model}` at `{revision}`: {first_line(error)}",
            hint="without a network, give the folder of a checkpoint instead of its name",
        ) from error
