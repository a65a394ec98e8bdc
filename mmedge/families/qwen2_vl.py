"""Qwen2-VL: answers about pictures of any shape by a language model (Wang et al. 2024,
https://arxiv.org/abs/2409.12191).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.families import _decoder_only as shared
from mmedge.families import _qwen_video as video
from mmedge.families import _qwen_vl as qwen

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

DECODER = shared.Decoder(
    text=lambda model: model.model.language_model, axes=qwen.AXES, angles=qwen.angles(qwen.by_section)
)

FILM = video.film(video.whole, qwen.nothing, video.frame_by_frame)


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one picture, ``embed`` and ``decoder``."""
    return shared.components(config, qwen.tower(config, _see), DECODER)


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Patches, tokens and positions as the checkpoint's processor and model make them."""
    return qwen.prepare(config, tokenizer, request, FILM, qwen.nothing)


# What follows runs only while exporting, on the modules of `transformers`.


def _see(model: Any, pixel_values: torch.Tensor, patch_positions: torch.Tensor) -> tuple[torch.Tensor]:
    visual = model.model.visual
    hidden, turn = qwen.embedded(visual, pixel_values), qwen.turns(visual, patch_positions)
    for block in visual.blocks:
        hidden = hidden + qwen.attended(block.attn, block.norm1(hidden), turn)
        hidden = hidden + block.mlp(block.norm2(hidden))
    return (visual.merger(hidden),)


FAMILY = Family(
    name="qwen2_vl",
    architectures=("Qwen2VLForConditionalGeneration",),
    tasks=qwen.tasks,
    components=components,
    prepare=prepare,
    generate=shared.generate,
    pixels=qwen.pixels,
    tiny=(
        {
            "model_type": "qwen2_vl",
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "text_config": {
                "model_type": "qwen2_vl_text",
                "vocab_size": 288,
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 1024,
                "initializer_range": 0.2,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            },
            "vision_config": {
                "depth": 2,
                "embed_dim": 32,
                "hidden_size": 64,
                "num_heads": 2,
                "patch_size": 8,
                "initializer_range": 0.2,
            },
            "image_token_id": 5,
            "video_token_id": 6,
            "vision_start_token_id": 3,
            "vision_end_token_id": 4,
            "tie_word_embeddings": False,
        },
    ),
)
