"""A tiny SigLIP 2 checkpoint: pictures of at most 30 patches of 8 pixels, texts of 64 tokens in lower case."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import AutoConfig, Siglip2ImageProcessorPil, Siglip2Model, Siglip2Processor, Siglip2Tokenizer

MERGES = (("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "a"), ("c", "a"), ("ca", "t"), ("▁", "▁"))
SPECIALS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")


def _beside(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"checkpoint_of_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    model = Siglip2Model(AutoConfig.for_model(**config)).eval()
    with torch.no_grad():
        _beside("siglip").spread(model)
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    model.save_pretrained(folder)
    images = Siglip2ImageProcessorPil(patch_size=config["vision_config"]["patch_size"], max_num_patches=30)
    tokenizer().save_pretrained(folder)
    images.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": Siglip2Processor.__name__}))
    return folder


def tokenizer() -> Siglip2Tokenizer:
    """Byte-pair encoding with bytes for what it does not know, and a token at the end of every text."""
    letters = ["▁", "\n", *(chr(code) for code in range(33, 127))]
    pieces = [*SPECIALS, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *(one + two for one, two in MERGES)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    made = Siglip2Tokenizer(
        vocab=vocabulary, merges=list(MERGES), padding_side="right", model_input_names=["input_ids"]
    )
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", vocabulary["<eos>"])]
    )
    return made
