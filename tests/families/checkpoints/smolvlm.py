"""A tiny SmolVLM checkpoint: 32-pixel tiles, up to two by two of them and the whole."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessorPil, SmolVLMProcessor

from mmedge.export.load import NoVideos, without_videos

_spec = importlib.util.spec_from_file_location("_tokens", Path(__file__).with_name("_tokens.py"))
_tokens = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tokens)

TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
SPECIALS = (
    "<pad>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)),
)  # fmt: skip
SIDE = 32


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    model = SmolVLMForConditionalGeneration(AutoConfig.for_model(**config)).eval()
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    tokenizer = _tokens.byte_level(
        SPECIALS, pad_token="<pad>", bos_token="<|im_start|>", eos_token="<end_of_utterance>"
    )
    sizes = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    with without_videos():
        processor = SmolVLMProcessor(
            SmolVLMImageProcessorPil(**sizes), tokenizer, NoVideos(), image_seq_len=4, chat_template=TEMPLATE
        )
    _tokens.save_processor(processor, folder, image_seq_len=4)
    return folder
