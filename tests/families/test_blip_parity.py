"""The built-in captioner and a full-size BLIP: tokens of float32 bundles against `generate` of `transformers`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mmedge
from mmedge.core.family import Request
from mmedge.export.build import export
from mmedge.export.fetch import find_checkpoint
from mmedge.export.load import load_model, read_checkpoint
from mmedge.media.image import decode_picture

MAKER = Path(__file__).parents[2] / "benchmarks" / "models" / "blip_base.py"
QUESTIONS = {"built-in": "how many things are there?", "full-size": "is there a red car ?"}
LIMIT = 16


@pytest.fixture(scope="module", params=["built-in", "full-size"])
def case(request, tmp_path_factory):
    """Name, checkpoint, float32 bundle, and what `generate` says for each picture and task."""
    folder = tmp_path_factory.mktemp(request.param)
    model = "builtin:scenes"
    if request.param == "full-size":
        model = str(folder / "checkpoint")
        subprocess.run([sys.executable, MAKER, model], check=True, capture_output=True)
    export(model, output=folder / "bundle", target="cpu", precision="float32")
    return request.param, model, folder / "bundle"


@pytest.fixture(scope="module")
def wanted(case, pictures):
    name, model, _ = case
    checkpoint = read_checkpoint(find_checkpoint(model))
    loaded = load_model(checkpoint)
    texts = {"caption": None, "ask": QUESTIONS[name]}
    return {
        (path, task): checkpoint.family.generate(loaded, checkpoint.processor, Request((pixels,), text), LIMIT)
        for path in pictures
        for pixels in [decode_picture(path.read_bytes(), path.name).pixels]
        for task, text in texts.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_tokens_are_those_of_generate(case, wanted, engine):
    name, _, bundle = case
    with mmedge.load(bundle, backend=engine) as pipeline:
        for (path, task), tokens in wanted.items():
            answer = pipeline.answer(task, path, QUESTIONS[name] if task == "ask" else None, limit=LIMIT)
            assert list(answer.tokens) == tokens, (path.name, task)
    assert len({tuple(tokens) for tokens in wanted.values()}) > 5, "a model that always says the same shows nothing"
