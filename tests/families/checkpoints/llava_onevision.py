"""A tiny LLaVA-OneVision checkpoint: 44-pixel tiles of five by five patches, up to four by four of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
)

from mmedge.export.load import NoVideos, without_videos

_spec = importlib.util.spec_from_file_location("_tokens", Path(__file__).with_name("_tokens.py"))
_tokens = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tokens)

SHOWN = "{%% for content in message['content'] | selectattr('type', 'equalto', '%s') %%}"
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}{# Render all images first #}"
    + SHOWN % "image"
    + "{{ '<image>' }}{% endfor %}{# Render all video then #}"
    + SHOWN % "video"
    + "{{ '<video>' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    + SHOWN % "text"
    + "{{ '\n' + content['text'] }}{% endfor %}{% else %}"
    + SHOWN % "text"
    + "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}{{'<|im_end|>'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(AutoConfig.for_model(**config)).eval()
    with torch.no_grad():  # the tower's own make nearly the same of every picture
        for name, weight in model.model.vision_tower.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.2 * weight.shape[1] ** -0.5 if "proj" in name or "fc" in name else 0.5)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    side = config["vision_config"]["image_size"]
    told = {"num_image_tokens": 25, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"}
    pictures = LlavaOnevisionImageProcessorPil(
        size={"height": side, "width": side}, image_grid_pinpoints=config["image_grid_pinpoints"]
    )
    tokenizer = _tokens.byte_level(SPECIALS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    with without_videos():
        processor = LlavaOnevisionProcessor(pictures, tokenizer, NoVideos(), chat_template=TEMPLATE, **told)
    _tokens.save_processor(processor, folder, **told)
    return folder
