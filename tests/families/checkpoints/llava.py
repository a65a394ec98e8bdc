"""Tiny LLaVA checkpoints: as the first ones (CLIP, Llama) and as the later ones (SigLIP, Qwen2, pictures padded)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    AutoConfig,
    CLIPImageProcessorPil,
    LlamaTokenizer,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
)

_spec = importlib.util.spec_from_file_location("_tokens", Path(__file__).with_name("_tokens.py"))
_tokens = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tokens)

PICTURES = "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
TEXTS = "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}" + PICTURES + "{{ '<image>\n' }}{% endfor %}"
    "{# Render all text next #}{% if message['role'] != 'assistant' %}"
    + TEXTS
    + "{{ content['text'] + ' '}}{% endfor %}{% else %}"
    + TEXTS
    + "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
QWEN = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    + PICTURES
    + "{{ '<image>' }}{% endfor %}"
    + TEXTS
    + "{{ '\n' + content['text'] }}{% endfor %}{{'<|im_end|>'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SIDE = 32


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(AutoConfig.for_model(**config)).eval()
    _spread(model)
    model.generation_config.eos_token_id = 2
    model.save_pretrained(folder)
    first = config["vision_config"]["model_type"] == "clip_vision_model"
    told = {
        "patch_size": config["vision_config"]["patch_size"],
        "num_additional_image_tokens": int(first),
        "vision_feature_select_strategy": config["vision_feature_select_strategy"],
    }
    processor = LlavaProcessor(_pictures(first), _words(first), chat_template=VICUNA if first else QWEN, **told)
    _tokens.save_processor(processor, folder, **told)
    return folder


def _spread(model: LlavaForConditionalGeneration) -> None:
    """The vision towers' own weights make nearly the same of every picture."""
    with torch.no_grad():
        for name, weight in model.model.vision_tower.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=1.7 * weight.shape[1] ** -0.5 if "proj" in name or "fc" in name else 1.0)


def _pictures(first: bool) -> Any:
    if first:
        return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return LlavaImageProcessorPil(
        do_pad=True,
        do_center_crop=False,
        size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def _words(first: bool) -> Any:
    if not first:
        return _tokens.byte_level(("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>"), eos_token="<|im_end|>")
    tokenizer = LlamaTokenizer(
        *llama_vocabulary(("<unk>", "<s>", "</s>", "<image>", "<pad>")), pad_token="<pad>", add_bos_token=True
    )
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    return tokenizer


def llama_vocabulary(specials: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces of text whose words begin with a mark, bytes for what they cannot spell, and how they are merged."""
    merges = [("t", "h"), ("▁", "th"), ("▁th", "e"), ("i", "n"), ("▁", "a"), ("▁", "i"), ("i", "s"), ("▁", "W")]
    pieces = (
        *specials, *(f"<0x{byte:02X}>" for byte in range(256)), "▁",
        *sorted({letter for pair in merges for part in pair for letter in part if letter != "▁"} | set("USERA:?")),
        *(one + two for one, two in merges),
    )  # fmt: skip
    return {piece: index for index, piece in enumerate(pieces)}, merges
