"""A tiny ALIGN checkpoint: 45-pixel pictures cut from larger ones, texts of at most 96 tokens, mostly letters."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from transformers import AlignModel, AlignProcessor, AutoConfig, BertTokenizer, EfficientNetImageProcessorPil

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = (*SPECIALS, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), *"?.,'-[]")


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``; pictures as published checkpoints have them."""
    torch.manual_seed(0)
    model = AlignModel(AutoConfig.for_model(**config)).eval()
    with torch.no_grad():
        spread(model.vision_model)
    model.save_pretrained(folder)
    side = config["vision_config"]["image_size"]
    images = EfficientNetImageProcessorPil(
        size={"height": side + 9, "width": side + 9},
        crop_size={"height": side, "width": side},
        do_center_crop=True,
        resample=2,
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        do_normalize=False,
        include_top=False,
    )
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(PIECES)}, do_lower_case=True)
    tokenizer.save_pretrained(folder)
    images.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": AlignProcessor.__name__}))
    return folder


def spread(tower: torch.nn.Module) -> None:
    """Convolutions that tell pictures apart, and means and variances as training would leave them."""
    for module in tower.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.3)
