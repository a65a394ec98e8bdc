"""A tiny SigLIP checkpoint: 32-pixel pictures, texts of 64 tokens, a SentencePiece model of 400 pieces."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import AutoConfig, SiglipImageProcessorPil, SiglipModel, SiglipProcessor, SiglipTokenizer

SENTENCES = (
    "a photo of a cat on the red sofa",
    "two bicycles are leaning against the wall of an old brick house",
    "the diagram shows how it works <unk>",
    "ein käse auf dem tisch für 4,50 € und mehr",
    "夜の街 には 雨 が 降る",
    "the quick brown fox jumps over the lazy dog 0123456789",
    "οδοσ οδος σίσυφος ñandú ça déjà",
)


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    model = SiglipModel(AutoConfig.for_model(**config)).eval()
    with torch.no_grad():
        spread(model)
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    side = config["vision_config"]["image_size"]
    (folder / "spiece.model").write_bytes(sentence_piece(config["text_config"]["vocab_size"]))
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_input_names=["input_ids"])
    images = SiglipImageProcessorPil(size={"height": side, "width": side})
    tokenizer.save_pretrained(folder)
    images.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": SiglipProcessor.__name__}))
    return folder


def spread(model: torch.nn.Module) -> None:
    """The library's first weights make nearly the same of every picture and text."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and ("embedding" in name or "probe" in name):
            weight.normal_(std=0.5)


def sentence_piece(size: int, **settings: Any) -> bytes:
    """A unigram model of at most ``size`` pieces, the first three as in published checkpoints."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4),
        model_writer=made,
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
        **settings,
    )
    return made.getvalue()
