"""Graphs, the checkpoint's assets and golden samples into the bundle's folder, and the manifest that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mmedge import __version__
from mmedge.core.bundle import SCHEMA, Golden, Graph, Manifest
from mmedge.core.names import readable
from mmedge.core.plan import Plan
from mmedge.core.report import Agreement, Answers
from mmedge.core.similarity import Similarity
from mmedge.export.examples import Example
from mmedge.runtime.classify import Labels, to_assets
from mmedge.runtime.golden import PICTURE, SOUND, prompt_arrays, record, stored, to_bytes
from mmedge.runtime.pipeline import Pipeline

TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy", "pillow", "tokenizers")

GOLDEN = 4
"""Samples that travel in the bundle."""


def pack_assets(vocabulary: bytes, folder: Path) -> dict[str, str]:
    """The tokenizer, as the device reads it."""
    target = folder / "assets" / "tokenizer.json"
    target.parent.mkdir()
    target.write_bytes(vocabulary)
    return {"tokenizer": "assets/tokenizer.json"}


def pack_labels(labels: Labels, folder: Path) -> dict[str, str]:
    """What pictures are told apart by, in place of a tokenizer."""
    (folder / "assets").mkdir()
    files = to_assets(labels)
    for name, content in files.items():
        (folder / "assets" / name).write_bytes(content)
    return {name: f"assets/{name}" for name in files}


def pack_golden(pipeline: Pipeline, examples: Sequence[Example], folder: Path) -> tuple[Golden, ...]:
    """Answer the first examples and keep inputs, outputs and tokens beside the picture or sound."""
    return tuple(_pack_one(pipeline, example, index, folder) for index, example in enumerate(examples[:GOLDEN]))


def _pack_one(pipeline: Pipeline, example: Example, index: int, folder: Path) -> Golden:
    place = folder / "golden" / str(index)
    place.mkdir(parents=True)
    prompt = pipeline.prepare(example.request())
    seen = record(pipeline.engine, prompt)
    (place / (SOUND if example.heard else PICTURE)).write_bytes(example.file.read_bytes())
    (place / "inputs.npz").write_bytes(to_bytes(stored(prompt_arrays(prompt))))
    (place / "outputs.npz").write_bytes(to_bytes(seen.outputs))
    text = pipeline.tokenizer.decode(list(seen.tokens)) if seen.tokens else ""
    return Golden(f"golden/{index}", example.task, example.text, seen.tokens, text)


def make_manifest(
    plan: Plan,
    graphs: Sequence[Graph],
    *,
    assets: dict[str, str],
    golden: tuple[Golden, ...],
    agreement: tuple[Agreement, ...],
    answers: Answers,
    preprocess_max_abs: float,
    similarity: Similarity | None,
    warnings: Sequence[str],
) -> Manifest:
    """All of the manifest but the list of files, which the writer adds."""
    return Manifest(
        schema=SCHEMA,
        name=plan.recipe.name,
        title=plan.recipe.title,
        model=_public_name(plan.recipe.model),
        family=plan.family.name,
        tasks=plan.tasks,
        target=plan.target,
        graphs=tuple(graphs),
        config=dict(plan.config),
        assets=assets,
        golden=golden,
        accept=plan.accept,
        agreement=agreement,
        answers=answers,
        preprocess_max_abs=preprocess_max_abs,
        similarity=similarity,
        made_with={"mmedge": __version__, **{tool: version(tool) for tool in TOOLS}},
        files={},
        warnings=tuple(warnings),
    )


def _public_name(model: str) -> str:
    """A folder is known by its name: where it lies here is nobody's business, and the bundle does not depend on it."""
    return readable(Path(model).resolve().name) if Path(model).is_dir() else model
