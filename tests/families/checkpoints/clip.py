"""A tiny CLIP checkpoint: 32-pixel pictures, texts of at most 77 tokens."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import AutoConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

_spec = importlib.util.spec_from_file_location("_tokens", Path(__file__).with_name("_tokens.py"))
_tokens = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tokens)


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    CLIPModel(AutoConfig.for_model(**config)).eval().save_pretrained(folder)
    tokenizer = _tokens.byte_level(("<start>", "<end>"), bos_token="<start>", eos_token="<end>", pad_token="<end>")
    ends = [("<start>", 0), ("<end>", 1)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=ends
    )
    side = config["vision_config"]["image_size"]
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    processor = CLIPProcessor(images, tokenizer)
    _tokens.save_processor(processor, folder)
    return folder
