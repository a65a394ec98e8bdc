"""Real bundles of tiny models with random weights, and commands run as a user would."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec.structs
import pytest

from mmedge import cli
from mmedge.core.bundle import MANIFEST, SEAL, open_bundle, write_manifest


class Shown(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def mmedge(capfd) -> Callable[..., Shown]:
    """``mmedge("inspect", bundle)`` runs the command line in this process."""

    def run(*arguments: object) -> Shown:
        code = cli.run([str(argument) for argument in arguments])
        return Shown(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def checkpoints(tiny_checkpoint, tmp_path_factory) -> tuple[Path, Path]:
    """A captioner and a model that answers questions."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return tiny_checkpoint(0, folder / "captioner"), tiny_checkpoint(1, folder / "answerer")


@pytest.fixture(scope="session")
def captioner(checkpoints, tmp_path_factory) -> Path:
    return _exported(checkpoints[0], tmp_path_factory.mktemp("captioner") / "tiny.bundle")


@pytest.fixture(scope="session")
def answerer(checkpoints, tmp_path_factory) -> Path:
    return _exported(checkpoints[1], tmp_path_factory.mktemp("answerer") / "tiny.bundle")


@pytest.fixture
def foreign_bundle(captioner, tmp_path) -> Path:
    """A bundle whose target names an engine that this version has no backend for."""
    return _for_coreml(captioner, tmp_path / "foreign.bundle", fallback=())


@pytest.fixture
def bundle_with_fallback(captioner, tmp_path) -> Path:
    """Another, whose target says what to try instead."""
    return _for_coreml(captioner, tmp_path / "fallback.bundle", fallback=("openvinno", "onnxruntime"))


def _for_coreml(bundle: Path, folder: Path, fallback: tuple[str, ...]) -> Path:
    shutil.copytree(bundle, folder)
    manifest = open_bundle(folder).manifest
    engines = {"tower": "coreml", "decode": "coreml"}
    target = msgspec.structs.replace(manifest.target, backends=engines, fallback=fallback)
    for name in (MANIFEST, SEAL):
        (folder / name).unlink()
    write_manifest(folder, msgspec.structs.replace(manifest, target=target))
    return folder


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of two pictures, and beside them a file that is none."""
    from PIL import Image

    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("red", "blue"):
        Image.new("RGB", (40, 30), name).save(folder / f"{name}.png")
    (folder / "notes.txt").write_text("nonsense")
    return folder


def _exported(checkpoint: Path, output: Path) -> Path:
    from mmedge.export.build import export

    export(str(checkpoint), output=output, precision="float32")
    return output
