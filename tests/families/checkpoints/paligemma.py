"""Tiny PaliGemma checkpoints, of the first and of the second generation: pictures of 16 rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PaliGemmaForConditionalGeneration, PaliGemmaProcessor, SiglipImageProcessorPil

SPECIALS = ("<image>",)


def part(name: str) -> Any:
    """A file beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    gemma, tokens = part("_gemma"), part("_tokens")
    torch.manual_seed(0)
    model = PaliGemmaForConditionalGeneration(AutoConfig.for_model(**config)).eval()
    gemma.draw(model)
    model.generation_config.update(bos_token_id=2, eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder)
    vision = config["vision_config"]
    side, rows = vision["image_size"], (vision["image_size"] // vision["patch_size"]) ** 2
    pictures = SiglipImageProcessorPil(size={"height": side, "width": side}, image_seq_length=rows)
    processor = PaliGemmaProcessor(pictures, gemma.tokenizer(SPECIALS))
    tokens.save_processor(processor, folder)
    return folder
