"""Every family of two towers that compares pictures with texts: exported from a tiny random checkpoint, both towers
give on every engine what the checkpoint's own processor and forward pass give, for batches that the trace never saw."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mmedge_doubles.install import installed
from PIL import Image

from mmedge import cli
from mmedge.core import find
from mmedge.errors import ContextError
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint
from mmedge.runtime.encoder import Encoder, load_encoder

FULL = {"padding": "max_length", "max_length": 64}
SETTINGS: dict[str, dict[str, Any]] = {
    "align": {},
    "clip": {"padding": True},
    "siglip": FULL,
    "siglip2": {**FULL, "patch_size": 8, "max_num_patches": 30},
}
"""What each family's processor is told; those of other modalities have tests of their own."""
ENGINES = ("onnxruntime", "openvino")
VERSION = "10.3"
"""Of TensorRT in JetPack 6.2, the oldest that the shipped targets are for."""
CLOSE = 1e-4

TEXTS = (
    "a photo of a cat",
    "",
    "Ein Käse — 北京 夜の街 🙂 ß ﬁ",
    "</s> <end> [SEP] <eos> <pad> <unk>",
    "It's 1,234.5 km!",
    "rain " * 11,
    "\n\t a  b ",
    "x",
    "the last of more than fit into one run",
)

pytestmark = pytest.mark.slow


def picture(width: int, height: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    blots = generator.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), np.uint8)
    return np.asarray(Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC))


SIZES = ((90, 160), (200, 90), (64, 64), (5, 3), (1, 1), (1500, 1100), (40, 400), (33, 31), (300, 20))
PICTURES = tuple(picture(*size, seed) for seed, size in enumerate(SIZES))


class Made(NamedTuple):
    checkpoint: Path
    bundle: Path
    images: np.ndarray
    texts: np.ndarray
    logits: np.ndarray
    """As torch has them."""


def write_checkpoint(name: str, folder: Path) -> Path:
    path = Path(__file__).parent / "checkpoints" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"checkpoint_of_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make(find.family(name).tiny[0], folder)


@pytest.fixture(scope="module", params=sorted(SETTINGS))
def made(request, tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    path = write_checkpoint(request.param, folder / "checkpoint")
    export(str(path), output=folder / "bundle", target="cpu", precision="float32")
    checkpoint = read_checkpoint(path)
    processor = checkpoint.processor
    processor.tokenizer.split_special_tokens = True  # what a user writes is only ever text
    images = [Image.fromarray(pixels) for pixels in PICTURES]
    inputs = processor(text=list(TEXTS), images=images, return_tensors="pt", **SETTINGS[request.param])
    with torch.inference_mode():
        out = load_model(checkpoint)(**inputs)
    seen = (np.asarray(tensor) for tensor in (out.image_embeds, out.text_embeds, out.logits_per_image))
    return Made(path, folder / "bundle", *seen)


@pytest.fixture(scope="module", params=ENGINES)
def encoder(request, made) -> Iterator[Encoder]:
    with load_encoder(made.bundle, backend=request.param) as opened:
        yield opened


def test_pictures_of_all_shapes_are_embedded_as_by_torch(made, encoder):
    assert np.abs(encoder.images(PICTURES) - made.images).max() <= CLOSE
    assert np.abs(made.images[0] - made.images[2]).max() > 100 * CLOSE, (
        "a model that always says the same shows nothing"
    )


def test_texts_of_all_kinds_are_embedded_as_by_torch(made, encoder):
    assert np.abs(encoder.texts(TEXTS) - made.texts).max() <= CLOSE
    assert np.abs(made.texts[0] - made.texts[7]).max() > 100 * CLOSE, "a model that always says the same shows nothing"


def test_one_input_alone_is_what_it_is_among_others(made, encoder):
    assert np.abs(encoder.images(PICTURES[3:4]) - made.images[3:4]).max() <= CLOSE
    assert np.abs(encoder.texts(TEXTS[2:3]) - made.texts[2:3]).max() <= CLOSE


def test_embeddings_are_compared_as_the_model_does(made, encoder):
    logits = encoder.similarity.logits(encoder.images(PICTURES), encoder.texts(TEXTS))
    assert np.abs(logits - made.logits).max() <= CLOSE * encoder.similarity.scale


def test_a_text_longer_than_the_model_reads_is_refused(encoder):
    with pytest.raises(ContextError, match="the model reads at most"):
        encoder.texts(["a cat " * 300])


def test_a_bundle_for_jetson_is_checked_compiled_replayed_and_embeds_as_torch(made, tmp_path, capfd):
    bundle = tmp_path / "bundle"
    export(str(made.checkpoint), output=bundle, target="jetson", precision="float32")
    capfd.readouterr()
    assert cli.run(["check", str(bundle), "--json"]) == 0
    assert not [found for found in json.loads(capfd.readouterr().out)["findings"] if found["severity"] == "error"]
    with installed(VERSION) as double:
        assert cli.run(["compile", str(bundle)]) == 0, capfd.readouterr().err
        assert cli.run(["verify", str(bundle)]) == 0, capfd.readouterr().err
        before = len(double.executions)
        with load_encoder(bundle) as encoder:
            assert set(encoder.backends.values()) == {"tensorrt"}
            assert np.abs(encoder.images(PICTURES) - made.images).max() <= CLOSE
            assert np.abs(encoder.texts(TEXTS) - made.texts).max() <= CLOSE
        assert len(double.executions) > before
