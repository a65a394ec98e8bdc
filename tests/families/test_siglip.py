"""Checkpoints of SigLIP 2 for pictures of one size call themselves SigLIP, and bring another tokenizer."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmedge.core import find
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint
from mmedge.runtime.encoder import load_encoder

TEXTS = ("a Cat on the mat", "", "Ein Käse — 北京 🙂", "<eos> <pad>")


def maker(name: str) -> Any:
    path = Path(__file__).parent / "checkpoints" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"checkpoint_of_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def as_published(folder: Path) -> Path:
    """With the tokenizer of Gemma, which fills up with its token 0."""
    maker("siglip").make(find.family("siglip").tiny[0], folder)
    for name in ("spiece.model", "tokenizer_config.json"):
        (folder / name).unlink()
    maker("siglip2").tokenizer().save_pretrained(folder)
    told = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(told | {"tokenizer_class": "GemmaTokenizer"}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_with_the_tokenizer_of_gemma_texts_are_embedded_as_by_torch(engine, tmp_path):
    folder = as_published(tmp_path / "checkpoint")
    export(str(folder), output=tmp_path / "bundle", target="cpu", precision="float32")
    checkpoint = read_checkpoint(folder)
    processor = checkpoint.processor
    processor.tokenizer.split_special_tokens = True  # what a user writes is only ever text
    image = Image.fromarray(np.zeros((9, 9, 3), np.uint8))
    inputs = processor(text=list(TEXTS), images=[image], padding="max_length", max_length=64, return_tensors="pt")
    with torch.inference_mode():
        wanted = load_model(checkpoint)(**inputs).text_embeds.numpy()
    with load_encoder(tmp_path / "bundle", backend=engine) as encoder:
        assert np.abs(encoder.texts(TEXTS) - wanted).max() <= 1e-4
    assert checkpoint.config["text"]["pad_token_id"] == 0


def test_a_tokenizer_json_beside_the_sentence_piece_model_is_not_read(tmp_path):
    """`transformers` does not either."""
    folder = maker("siglip").make(find.family("siglip").tiny[0], tmp_path)
    alone = read_checkpoint(folder).vocabulary
    maker("siglip2").tokenizer().backend_tokenizer.save(str(folder / "tokenizer.json"))
    assert read_checkpoint(folder).vocabulary == alone
