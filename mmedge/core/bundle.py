"""The folder that travels: its manifest, and the one place that opens its files."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from mmedge.core.ports import CacheShape, Port
from mmedge.core.recipe import Acceptance
from mmedge.core.report import Agreement, Answers
from mmedge.core.target import Target

SCHEMA = 1


class Graph(Struct, frozen=True):
    """One component as an ONNX file of the bundle (weights beside it as external data)."""

    component: str
    file: str
    """Path in the bundle, ``graphs/<component>.onnx``."""
    inputs: tuple[Port, ...]
    """Without the cache."""
    outputs: tuple[Port, ...]
    precision: str
    cache: CacheShape | None = None

    @property
    def role(self) -> str:
        """``decode`` for the graph that is run once a token, ``tower`` for the others."""
        return "decode" if self.cache else "tower"


class File(Struct, frozen=True):
    """What the manifest promises of one file."""

    size: int
    sha256: str


class Golden(Struct, frozen=True):
    """A recorded request with what the bundle answered when it was made.

    The folder ``path`` holds the picture as ``picture.png``, the inputs of each component as ``<component>.inputs.npz``
    and its outputs as ``<component>.outputs.npz``; an output of more than 4,096 elements is stored as every k-th
    element of its flat form, ``k = ceil(size / 4096)``.
    """

    path: str
    task: str
    question: str | None
    tokens: tuple[int, ...]
    text: str


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is in a bundle."""

    schema: int
    name: str
    title: str
    model: str
    family: str
    tasks: tuple[str, ...]
    target: Target
    graphs: tuple[Graph, ...]
    """In the order they run."""
    config: dict[str, Any]
    """``model``, ``image`` and ``generation``: the checkpoint's JSON files, as families read them."""
    assets: dict[str, str]
    """Other files of the checkpoint by purpose: ``tokenizer``."""
    golden: tuple[Golden, ...]
    accept: Acceptance
    agreement: tuple[Agreement, ...]
    answers: Answers
    preprocess_max_abs: float
    """Largest difference of a pre-processed picture to the checkpoint's own processor, before normalising (0..1)."""
    made_with: dict[str, str]
    """Versions of the tools."""
    files: dict[str, File]
    """Every file of the bundle but the manifest itself."""
    warnings: tuple[str, ...] = ()
