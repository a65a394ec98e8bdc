"""What a bundle says about itself, and the rules that its ``manifest.json`` must keep before anyone acts on it."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from mmedge.core.family import role_of
from mmedge.core.names import folders_of, is_digest, is_file_name, is_plain_name, shown
from mmedge.core.ports import CacheShape, Port, Span
from mmedge.core.recipe import Acceptance
from mmedge.core.report import Agreement, Answers
from mmedge.core.similarity import Similarity
from mmedge.core.strict_json import read_json
from mmedge.core.target import Target
from mmedge.errors import BundleError

SCHEMA = 1
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
"""The digest of the manifest as ``sha256sum`` writes it: the manifest itself has no other witness of a flipped bit."""

LARGEST_MANIFEST = 1 << 20
MOST_FILES = 10_000
_DEEPEST = 16
_LARGEST_FILE = 1 << 53
_MOST_TOKENS = 1 << 31
_LARGEST_SIZE = (1 << 31) - 1
"""Engines count in 32 bits along an axis."""
_DTYPES = frozenset(
    {"bool", "float16", "float32", "float64"} | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)


class Form(Struct, frozen=True, forbid_unknown_fields=True):
    """The same component spelled for one engine alone; what it shares with the graph it reads from the same file."""

    file: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    cache: CacheShape


class Graph(Struct, frozen=True, forbid_unknown_fields=True):
    """One component as an ONNX file of the bundle (weights beside it as external data)."""

    component: str
    file: str
    """Path in the bundle, ``graphs/<component>.onnx``."""
    inputs: tuple[Port, ...]
    """Without the cache."""
    outputs: tuple[Port, ...]
    precision: str
    cache: CacheShape | None = None
    profiles: tuple[dict[str, Span], ...] = ()
    """Ranges of the sizes that vary, by the words in the shapes, one set for each way the graph is run (of a decoder:
    one token, and a prompt). Engines that are built for a range are built for each."""
    forms: dict[str, Form] = {}
    """By backend; other backends read ``file``."""

    def made_for(self, backend: str) -> Graph:
        """As the backend reads it."""
        if (form := self.forms.get(backend)) is None:
            return self
        return replace(self, file=form.file, inputs=form.inputs, outputs=form.outputs, cache=form.cache, forms={})

    @property
    def role(self) -> str:
        """``decode`` for graphs that are run once a token, ``tower`` for the others."""
        return role_of(self.inputs, self.cache)


class File(Struct, frozen=True, forbid_unknown_fields=True):
    """What the manifest promises of one file."""

    size: int
    sha256: str


class Golden(Struct, frozen=True, forbid_unknown_fields=True):
    """A recorded request with what the bundle answered when it was made.

    The folder ``path`` holds the picture as ``picture.png``, or the sound as ``sound.npz``; in ``inputs.npz`` the
    prompt as numbers (see `mmedge.runtime.golden.prompt_arrays`), inputs of more than 4 MiB in all thinned as outputs
    are; in ``outputs.npz`` what the graphs gave as ``<component>:<port>``, of the decoder ``logits`` after the prompt
    and ``logits.last`` after the answer. An output of more than 4,096 elements is stored as every k-th element of its
    flat form, ``k = ceil(size / 4096)``.
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
    """``model``, ``image``, ``text`` and ``generation``: the checkpoint's JSON files, as families read them."""
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
    """Every file of the bundle but the manifest itself and its seal."""
    warnings: tuple[str, ...] = ()
    similarity: Similarity | None = None
    """Of models that embed several modalities."""


def parse_manifest(raw: bytes, where: str = MANIFEST) -> Manifest:
    """A manifest that keeps every rule; keys that start with ``x-`` at its top level are notes for others and dropped.

    Raises:
        BundleError: naming ``where`` and the rule.
    """
    try:
        if len(raw) > LARGEST_MANIFEST:
            raise ValueError(f"it is {len(raw)} bytes, at most {LARGEST_MANIFEST} are allowed")
        values = read_json(raw, deepest=_DEEPEST)
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        _check_schema(values.get("schema"), where)
        manifest = msgspec.convert({key: value for key, value in values.items() if key[:2] != "x-"}, Manifest)
        check_manifest(manifest)
    except ValueError as error:  # of the JSON reader, of msgspec and of the checks
        raise BundleError(f"`{where}` is not a manifest: {shown(str(error), 300)}") from error
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``: the same for the same content.

    Raises:
        BundleError: it contains half a surrogate pair, which a checkpoint or a file name can have.
    """
    try:
        text = msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2).decode()
    except UnicodeEncodeError as error:
        raise BundleError(f"`{MANIFEST}` cannot be written: {error}") from error
    if not unicodedata.is_normalized("NFC", text):  # a label of the checkpoint must arrive as it is: write it escaped
        text = re.sub(r"[^\x00-\x7f]+", lambda found: json.dumps(found[0])[1:-1], text)
    return f"{text}\n".encode()


def check_manifest(manifest: Manifest) -> None:
    """Raises ValueError where a name, a number or a reference inside the manifest is wrong."""
    _check_files(manifest.files)
    for graph in manifest.graphs:
        _check_graph(graph, manifest.files)
    if len(components := {graph.component for graph in manifest.graphs}) != len(manifest.graphs):
        raise ValueError(f"it has {len(manifest.graphs)} graphs, but only {len(components)} names for them")
    for purpose, name in manifest.assets.items():
        _check_listed(name, f"the asset `{shown(purpose)}`", manifest.files)
    folders = {folder for name in manifest.files for folder in folders_of(name)}
    for golden in manifest.golden:
        if golden.path not in folders:
            raise ValueError(f"the golden sample `{shown(golden.path)}` has no files")
        if not all(0 <= token < _MOST_TOKENS for token in golden.tokens):
            raise ValueError(f"the golden sample `{golden.path}` has a token that cannot be one")
    _check_complete(manifest)


def _check_complete(manifest: Manifest) -> None:
    """What every bundle needs to be opened."""
    if not manifest.graphs:
        raise ValueError("it has no graphs")
    for graph in manifest.graphs:
        if graph.role not in manifest.target.backends:
            raise ValueError(f"its target names no backend for `{graph.role}`, which `{graph.component}` needs")
    if sorted(seen.component for seen in manifest.agreement) != sorted(graph.component for graph in manifest.graphs):
        raise ValueError(f"its agreement is told {len(manifest.agreement)} times, not once for each graph")
    if "tokenizer" not in manifest.assets and manifest.tasks != ("classify",):  # its labels are numbers by now
        raise ValueError("it has no asset `tokenizer`")
    for part in ("model", "image", "text", "generation"):
        if not isinstance(manifest.config.get(part), dict):
            raise ValueError(f"its config has no object `{part}`")
    if not isinstance(manifest.config["text"].get("clean_up_tokenization_spaces"), bool):
        raise ValueError("its config has no true or false `text.clean_up_tokenization_spaces`")


def _check_schema(schema: object, where: str) -> None:
    if not isinstance(schema, int) or schema < 1:
        raise ValueError("it has no schema number")
    if schema > SCHEMA:
        raise BundleError(
            f"`{where}` has schema {schema}, this mmedge reads schema {SCHEMA}",
            hint="it was made by a newer mmedge: update mmedge here, or export the bundle again with this version",
        )


def _check_files(files: dict[str, File]) -> None:
    """Names are lower case only, so none is the twin of another on a file system that ignores case."""
    if len(files) > MOST_FILES:
        raise ValueError(f"it lists {len(files)} files, at most {MOST_FILES} are allowed")
    for name, file in files.items():
        if not is_file_name(name) or name in (MANIFEST, SEAL):
            raise ValueError(f"`{shown(name)}` is not allowed as a file name")
        if not 0 <= file.size <= _LARGEST_FILE:
            raise ValueError(f"the size of `{name}` is {file.size}")
        if not is_digest(file.sha256):
            raise ValueError(f"the sha256 of `{name}` is `{shown(file.sha256)}`")


def _check_graph(graph: Graph, files: dict[str, File]) -> None:
    what = f"the graph `{shown(graph.component)}`"
    if not is_plain_name(graph.component):  # it becomes part of file names
        raise ValueError(f"`{shown(graph.component)}` is not allowed as the name of a component")
    _check_listed(graph.file, what, files)
    if not graph.file.endswith(".onnx"):  # references inside a model are only looked for where this says it is one
        raise ValueError(f"{what} is the file `{graph.file}`, which is not called .onnx")
    for port in (*graph.inputs, *graph.outputs):
        _check_port(port, what)
    _check_cache(graph.cache, what)
    for backend, form in graph.forms.items():
        if not is_plain_name(backend) or not form.file.endswith(".onnx"):
            raise ValueError(f"{what} has a form for `{shown(backend)}` that cannot be used")
        _check_listed(form.file, what, files)
        for port in (*form.inputs, *form.outputs):
            _check_port(port, what)
        _check_cache(form.cache, what)
    for profile in graph.profiles:
        for word, span in profile.items():
            _check_span(span, f"the range of `{shown(word)}` of {what}")


def _check_cache(cache: CacheShape | None, what: str) -> None:
    if cache and not (cache.dtype in _DTYPES and min(cache.layers, cache.heads, cache.head_dim) > 0):
        raise ValueError(f"the cache of {what} cannot exist")


def _check_port(port: Port, what: str) -> None:
    if port.dtype not in _DTYPES:
        raise ValueError(f"`{shown(port.name)}` of {what} has the unknown dtype `{shown(port.dtype)}`")
    if any(isinstance(size, int) and size < 0 for size in port.shape):
        raise ValueError(f"`{shown(port.name)}` of {what} has a negative size")


def _check_span(span: Span, what: str) -> None:
    if not 1 <= span.smallest <= span.usual <= span.largest <= _LARGEST_SIZE:
        sizes = f"{span.smallest}, {span.usual}, {span.largest}"
        raise ValueError(f"{what} is {sizes}: smallest, usual and largest must grow within 1 to {_LARGEST_SIZE}")


def _check_listed(name: str, what: str, files: dict[str, File]) -> None:
    if name not in files:
        raise ValueError(f"{what} is the file `{shown(name)}`, which is not among its files")
