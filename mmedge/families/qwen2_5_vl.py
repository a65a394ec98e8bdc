"""Qwen2.5-VL: answers about pictures of any shape by a language model (Bai et al. 2025,
https://arxiv.org/abs/2502.13923).

Most layers of its vision tower let patches look no farther than the window they lie in.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port, Span, Tensors
from mmedge.families import _decoder_only as shared
from mmedge.families import _layers as layers
from mmedge.families import _qwen_video as video
from mmedge.families import _qwen_vl as qwen

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

DECODER = shared.Decoder(
    text=lambda model: model.model.language_model, axes=qwen.AXES, angles=qwen.angles(qwen.by_section)
)


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one picture, ``embed`` and ``decoder``."""
    side, patches = side_of_window(config), patches_of_group(config)
    windows = (
        Port("window_patches", "int64", ("windows", side**2 * patches)),
        Port("window_bias", "float32", ("windows", side**2 * patches)),
        Port("window_slots", "int64", ("groups", patches)),
    )
    tower = qwen.tower(config, _see, inputs=windows)
    tower = replace(tower, sizes={**tower.sizes, "windows": windows_span(tower.sizes["groups"], side)})
    return shared.components(config, tower, DECODER)


def patches_of_group(config: Config) -> int:
    """In a square."""
    return int(config["model"]["vision_config"]["spatial_merge_size"] ** 2)


def side_of_window(config: Config) -> int:
    """In groups."""
    vision = config["model"]["vision_config"]
    return int(vision["window_size"] // vision["patch_size"] // vision["spatial_merge_size"])


def windows_span(groups: Span, side: int) -> Span:
    """In how many windows so many groups lie: fewest in whole windows, most in a single row."""
    fewest, most = -(-groups.smallest // side**2), -(-groups.largest // side)
    return Span(fewest, min(math.ceil(math.sqrt(groups.usual) / side) ** 2, most), most)


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Patches, windows, tokens and positions as the checkpoint's processor and model make them."""
    return qwen.prepare(config, tokenizer, request, FILM, _told)


def _told(config: Config, rows: int, columns: int) -> Tensors:
    groups, slots = windows(rows, columns, side_of_window(config))
    patches = patches_of_group(config)
    bias = np.where(groups < 0, np.float32(layers.UNSEEN), np.float32(0))
    return {
        "window_patches": _each(np.maximum(groups, 0), patches).reshape(len(groups), -1),
        "window_bias": bias.repeat(patches, axis=1),
        "window_slots": _each(slots, patches),
    }


def _each(groups: np.ndarray, patches: int) -> np.ndarray:
    """The patches of groups, along an axis more."""
    return groups[..., None] * patches + np.arange(patches)


def windows(rows: int, columns: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Which group lies in each slot of each window, int64 ``[windows, side * side]``, -1 in those beyond the picture;
    and in which slot of all each group lies, int64 ``[groups]``."""
    down, across = -(-rows // side), -(-columns // side)
    groups = np.full((down * side, across * side), -1)
    groups[:rows, :columns] = np.arange(rows * columns).reshape(rows, columns)
    groups = groups.reshape(down, side, across, side).swapaxes(1, 2).reshape(down * across, side**2)
    return groups, np.argsort(groups, axis=None, kind="stable")[-rows * columns :]


def _shown(config: Config, slices: video.Slices) -> tuple[str, list[qwen.Grid]]:
    """All slices one after the other, as many positions apart as their times ask for."""
    text, (grid,) = video.whole(config, slices)
    return text, [grid._replace(interval=config["model"]["vision_config"]["tokens_per_second"] * slices.gap)]


FILM = video.film(_shown, _told, video.frame_by_frame)


# What follows runs only while exporting, on the modules of `transformers`.


def _see(
    model: Any,
    pixel_values: torch.Tensor,
    patch_positions: torch.Tensor,
    window_patches: torch.Tensor,
    window_bias: torch.Tensor,
    window_slots: torch.Tensor,
) -> tuple[torch.Tensor]:
    visual = model.model.visual
    hidden, turn = qwen.embedded(visual, pixel_values), qwen.turns(visual, patch_positions)
    cosines, sines = (_rows(part[0], window_patches) for part in turn)
    windows = _Windows(window_patches, window_bias[:, None, None], window_slots.flatten(), (cosines, sines))
    for index, block in enumerate(visual.blocks):
        normalised = layers.normalised(block.norm1, hidden)
        if index in visual.fullatt_block_indexes:
            hidden = hidden + qwen.attended(block.attn, normalised, turn)
        else:
            hidden = hidden + _attended_within(block.attn, normalised, windows)
        hidden = hidden + layers.feed(block.mlp, layers.normalised(block.norm2, hidden))
    merger = visual.merger
    return (merger.mlp(layers.normalised(merger.ln_q, hidden).reshape(-1, merger.hidden_size)),)


class _Windows(NamedTuple):
    patches: torch.Tensor
    """int64 ``[windows, slots]``: which patch lies in each slot."""
    bias: torch.Tensor
    """``[windows, 1, 1, slots]``"""
    slots: torch.Tensor
    """int64 ``[patches]``: which slot of all each patch lies in."""
    turn: tuple[torch.Tensor, torch.Tensor]
    """Cosines and sines, ``[windows, slots, head_dim / 2]``."""


def _attended_within(attention: Any, hidden: torch.Tensor, windows: _Windows) -> torch.Tensor:
    """Attention of every patch to those of its window, ``[1, patches, width]``.

    Spelled, since the exporter would guard an attention with a bias against rows that see nothing, by a number that
    float16 does not have.
    """
    joined = _rows(attention.qkv(hidden)[0], windows.patches)
    query, key, value = qwen.heads(attention, joined, windows.turn)
    scores = query * attention.scaling @ key.transpose(-2, -1) + windows.bias
    context = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    return attention.proj(_rows(context.flatten(0, 1), windows.slots)[None])


def _rows(table: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.embedding(places, table)


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
