"""Tiny InternVL checkpoints of 32-pixel tiles.

One as InternVL3 of 1 to 14 billion weights is: Qwen2, tied embeddings, one to twelve tiles and the whole. One as those
that began with InternLM are: Llama with a begin token and embeddings of its own for the output, and the vision tower of
the largest; at least two tiles and at most six.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import AutoConfig, GotOcr2ImageProcessorPil, InternVLForConditionalGeneration, InternVLProcessor

from mmedge.export.load import NoVideos, without_videos

_spec = importlib.util.spec_from_file_location("_tokens", Path(__file__).with_name("_tokens.py"))
_tokens = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tokens)

TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<pad>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>", "<s>")
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
SIDE, ROWS_OF_A_TILE = 32, 4


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    model = InternVLForConditionalGeneration(AutoConfig.for_model(**config)).eval()
    _spread(model)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    is_llama = config["text_config"]["model_type"] == "llama"
    tokenizer = _tokens.byte_level(SPECIALS, pad_token="<pad>", eos_token="<|im_end|>", **NAMED)
    if is_llama:
        tokenizer.bos_token = "<s>"
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 7)]
        )
    tiles = {"min_patches": 2, "max_patches": 6} if is_llama else {}
    pictures = GotOcr2ImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
        **tiles,
    )
    with without_videos():
        processor = InternVLProcessor(
            pictures, tokenizer, NoVideos(), image_seq_length=ROWS_OF_A_TILE, chat_template=TEMPLATE
        )
    _tokens.save_processor(processor, folder, image_seq_length=ROWS_OF_A_TILE)
    return folder


def _spread(model: Any) -> None:
    """What a new model has as zeros or ones is no longer the same everywhere, as training would leave it."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.min() == weights.max():
                weights.add_(torch.rand_like(weights) - 0.5)
