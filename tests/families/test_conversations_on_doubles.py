"""Every family with a tiny checkpoint of its own, exported for Jetson: checked, compiled by the command, replayed, and
answering on the double of TensorRT as `generate` of `transformers` does."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from mmedge_doubles.install import installed
from PIL import Image

import mmedge
from mmedge import cli
from mmedge.core import find
from mmedge.core.family import Request
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint

FOLDER = Path(__file__).parent / "checkpoints"
CHECKPOINTS = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
FAMILIES = [name for name in CHECKPOINTS if find.family(name).generate]
VERSION = "10.3"
"""Of JetPack 6.2, the oldest that the shipped targets are for."""
LIMIT = 8

pytestmark = pytest.mark.slow


def picture(width: int, height: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    blots = generator.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), np.uint8)
    return np.asarray(Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC))


REQUESTS = (
    Request((picture(90, 160, 1),), "What is it?"),
    Request((picture(64, 64, 2), picture(200, 90, 3)), "Which?"),
    Request((picture(5, 3, 4),), "Why?"),
)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bundle_is_checked_compiled_and_answers_as_torch(name, tmp_path, capfd):
    spec = importlib.util.spec_from_file_location(f"checkpoint_of_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    family = find.family(name)
    folder = module.make(family.tiny[0], tmp_path / "checkpoint")
    bundle = tmp_path / "bundle"
    export(str(folder), output=bundle, target="jetson", precision="float32")
    checkpoint = read_checkpoint(folder)
    model = load_model(checkpoint)
    capfd.readouterr()
    assert cli.run(["check", str(bundle), "--json"]) == 0
    assert not [found for found in json.loads(capfd.readouterr().out)["findings"] if found["severity"] == "error"]
    with installed(VERSION) as double:
        assert cli.run(["compile", str(bundle)]) == 0, capfd.readouterr().err
        assert cli.run(["verify", str(bundle)]) == 0, capfd.readouterr().err
        before = len(double.executions)
        with mmedge.load(bundle) as pipeline:
            assert set(pipeline.backends.values()) == {"tensorrt"}
            for request in REQUESTS:
                prompt = pipeline.prepare(request)
                got = [piece.token for piece in pipeline.stream(prompt, limit=LIMIT) if piece.token is not None]
                assert got == family.generate(model, checkpoint.processor, request, LIMIT)
        assert len(double.executions) > before
