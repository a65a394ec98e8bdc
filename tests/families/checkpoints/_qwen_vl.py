"""What the tiny checkpoints of Qwen models that see share: vocabulary, and pictures of 4 to 36 groups of patches."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import Qwen2VLImageProcessorPil

from mmedge.export.load import NoVideos, without_videos

_spec = importlib.util.spec_from_file_location("_tokens", Path(__file__).with_name("_tokens.py"))
_tokens = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tokens)

TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Of Qwen2-VL and Qwen2.5-VL."""

SPECIALS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
PATCH = 8
GROUP = (2 * PATCH) ** 2
"""Pixels."""


def save(model: Any, processor_class: Any, template: str, folder: Path, **images: object) -> Path:
    """Write the whole checkpoint into ``folder``; ``images`` are settings of its picture processor."""
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tokenizer = _tokens.byte_level(SPECIALS, pad_token="<|endoftext|>", eos_token="<|im_end|>")
    size = {"shortest_edge": 4 * GROUP, "longest_edge": 36 * GROUP}
    reader = Qwen2VLImageProcessorPil(patch_size=PATCH, size=size, **images)
    with without_videos():
        processor = processor_class(reader, tokenizer, NoVideos(), chat_template=template)
    _tokens.save_processor(processor, folder)
    return folder
