"""Qwen2.5-VL: answers about pictures of any shape by a language model (Bai et al. 2025,
https://arxiv.org/abs/2502.13923).

Most layers of its vision tower let patches look no farther than the window they lie in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port, Tensors
from mmedge.families import _decoder_only as shared
from mmedge.families import _qwen_vl as qwen

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

DECODER = shared.Decoder(
    text=lambda model: model.model.language_model, axes=qwen.AXES, angles=qwen.angles(qwen.by_section)
)

UNSEEN = -6000.0
"""Added to the scores of what lies in another window; float16 has room for it."""


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one picture, ``embed`` and ``decoder``."""
    tower = qwen.tower(config, _see, inputs=(Port("windows", "int64", ("groups",)),))
    return shared.components(config, tower, DECODER)


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Patches, windows, tokens and positions as the checkpoint's processor and model make them."""
    return qwen.prepare(config, tokenizer, request, _told)


def _told(config: Config, rows: int, columns: int) -> Tensors:
    vision = config["model"]["vision_config"]
    side = vision["window_size"] // vision["patch_size"] // vision["spatial_merge_size"]
    return {"windows": windows(rows, columns, side)}


def windows(rows: int, columns: int, side: int) -> np.ndarray:
    """Which window each group lies in, int64 ``[groups]``; ``side`` of a window in groups."""
    across = -(-columns // side)
    return (np.arange(rows)[:, None] // side * across + np.arange(columns) // side).reshape(-1)


# What follows runs only while exporting, on the modules of `transformers`.


def _see(
    model: Any, pixel_values: torch.Tensor, patch_positions: torch.Tensor, windows: torch.Tensor
) -> tuple[torch.Tensor]:
    visual = model.model.visual
    hidden, turn = qwen.embedded(visual, pixel_values), qwen.turns(visual, patch_positions)
    apart = _apart(windows, patches=pixel_values.shape[1])
    for index, block in enumerate(visual.blocks):
        bias = None if index in visual.fullatt_block_indexes else apart
        hidden = hidden + qwen.attended(block.attn, shared.normalised(block.norm1, hidden), turn, bias)
        hidden = hidden + shared.feed(block.mlp, shared.normalised(block.norm2, hidden))
    merger = visual.merger
    return (merger.mlp(shared.normalised(merger.ln_q, hidden).reshape(-1, merger.hidden_size)),)


def _apart(windows: torch.Tensor, patches: int) -> torch.Tensor:
    """What hides other windows, ``[1, 1, patches, patches]``."""
    import torch

    window = windows[:, None].expand(-1, patches).flatten()
    apart = window[:, None] != window[None]
    return torch.zeros(apart.shape).masked_fill(apart, UNSEEN)[None, None]


FAMILY = Family(
    name="qwen2_5_vl",
    architectures=("Qwen2_5_VLForConditionalGeneration",),
    tasks=qwen.tasks,
    components=components,
    prepare=prepare,
    generate=shared.generate,
    pixels=qwen.pixels,
    tiny=(
        {
            "model_type": "qwen2_5_vl",
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "text_config": {
                "model_type": "qwen2_5_vl_text",
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
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 48,
                "out_hidden_size": 64,
                "num_heads": 2,
                "patch_size": 8,
                "window_size": 48,
                "fullatt_block_indexes": [1],
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
