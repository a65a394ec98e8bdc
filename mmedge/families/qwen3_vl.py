"""Qwen3-VL: answers about pictures of any shape by a language model (Bai et al. 2025,
https://arxiv.org/abs/2511.21631).

Its vision tower has learned positions for a square of patches, between which it interpolates; and what its earlier
layers saw is added to the rows of a picture after the first layers of the decoder.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mmedge.core.family import Component, Config, Family, Insertion, Prompt, Request
from mmedge.core.ports import Port, Tensors
from mmedge.families import _decoder_only as shared
from mmedge.families import _qwen_picture as picture
from mmedge.families import _qwen_video as video
from mmedge.families import _qwen_vl as qwen

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

CORNERS = 4
"""Learned positions around a patch."""

DECODER = shared.Decoder(
    text=lambda model: model.model.language_model, axes=qwen.AXES, angles=qwen.angles(qwen.in_turns)
)


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one picture, ``embed`` and ``decoder``."""
    patches = config["model"]["vision_config"]["spatial_merge_size"] ** 2
    places = Port("table_places", "int64", ("groups", patches, CORNERS))
    shares = Port("table_shares", "float32", ("groups", patches, CORNERS))
    width = shared.text_of(config)["hidden_size"]
    deep = tuple(Port(name, "float32", ("groups", width)) for name in deep_features(config))
    tower = qwen.tower(config, _see, inputs=(places, shares), outputs=deep)
    return shared.components(config, tower, replace(DECODER, deep=len(deep)))


def deep_features(config: Config) -> tuple[str, ...]:
    """Names of the rows that are added after the first, second... layer of the decoder."""
    layers = config["model"]["vision_config"]["deepstack_visual_indexes"]
    return tuple(f"deep_features.{index}" for index in range(len(layers)))


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Patches, tokens and positions as the checkpoint's processor and model make them."""
    made = qwen.prepare(config, tokenizer, request, FILM, _told)
    deep = tuple(
        Insertion(name, f"deep.{index}", insertion.places)
        for insertion in made.insertions
        for index, name in enumerate(deep_features(config))
    )
    return msgspec.structs.replace(made, insertions=(*made.insertions, *deep))


def _told(config: Config, rows: int, columns: int) -> Tensors:
    vision = config["model"]["vision_config"]
    places, shares = corners(rows, columns, vision["spatial_merge_size"], int(vision["num_position_embeddings"] ** 0.5))
    return {"table_places": places, "table_shares": shares}


def corners(rows: int, columns: int, merge: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Between which of ``side * side`` learned positions each patch lies, and how much of each it gets: int64 and
    float32 ``[groups, patches of a group, 4]``. The corners of the picture are those of the square."""
    lies = picture.patch_positions(rows, columns, merge)
    row, row_share = _neighbours(lies[..., 0], rows * merge, side)
    column, column_share = _neighbours(lies[..., 1], columns * merge, side)
    places = row[..., :, None] * side + column[..., None, :]
    shares = row_share[..., :, None] * column_share[..., None, :]
    return places.reshape(*lies.shape[:2], CORNERS), shares.reshape(*lies.shape[:2], CORNERS)


def _neighbours(index: np.ndarray, size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, ``[..., 2]``; in float32 as the model does, so that the shares are the same to the last bit."""
    place = index.astype(np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    below = np.floor(place)[..., None]
    ahead = np.arange(2, dtype=np.float32)
    shares = np.maximum(1 - np.abs(place[..., None] - below - ahead), 0)
    return np.minimum(below + ahead, side - 1).astype(np.int64), shares


def _shown(config: Config, slices: video.Slices) -> tuple[str, list[qwen.Grid]]:
    """Every slice apart, after the time at which it is shown."""
    groups = config["text"]["video_token"] * slices.groups
    texts = (f"<{seconds:.1f} seconds><|vision_start|>{groups}<|vision_end|>" for seconds in slices.seconds)
    return "".join(texts), [qwen.Grid(1, slices.rows, slices.columns)] * len(slices.seconds)


def _sized(frames: int, height: int, width: int, settings: Config) -> tuple[int, int]:
    """All frames together are held to the bounds."""
    side, depth = picture.side_of_group(settings), settings["temporal_patch_size"]
    if min(height, width) < side:
        scale = max(side / height, side / width)
        height, width = int(height * scale), int(width * scale)
    frames = max(frames, depth)
    return picture.grid(height, width, settings, frames, round(frames / depth) * depth)


FILM = video.film(_shown, _told, _sized)


# What follows runs only while exporting, on the modules of `transformers`.


def _see(
    model: Any,
    pixel_values: torch.Tensor,
    patch_positions: torch.Tensor,
    table_places: torch.Tensor,
    table_shares: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    visual = model.model.visual
    table = (visual.pos_embed(table_places) * table_shares[..., None]).sum(2)
    hidden = qwen.embedded(visual, pixel_values) + table.flatten(0, 1)[None]
    turn, deep, mergers = qwen.turns(visual, patch_positions), [], iter(visual.deepstack_merger_list)
    for index, block in enumerate(visual.blocks):
        hidden = hidden + qwen.attended(block.attn, block.norm1(hidden), turn)
        hidden = hidden + block.mlp(block.norm2(hidden))
        if index in visual.deepstack_visual_indexes:
            deep.append(next(mergers)(hidden))
    return visual.merger(hidden), *deep


FAMILY = Family(
    name="qwen3_vl",
    architectures=("Qwen3VLForConditionalGeneration",),
    tasks=qwen.tasks,
    components=components,
    prepare=prepare,
    generate=shared.generate,
    pixels=qwen.pixels,
    tiny=(
        {
            "model_type": "qwen3_vl",
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "text_config": {
                "model_type": "qwen3_vl_text",
                "vocab_size": 288,
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "max_position_embeddings": 1024,
                "initializer_range": 0.2,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [4, 2, 2],
                    "mrope_interleaved": True,
                },
            },
            "vision_config": {
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 64,
                "out_hidden_size": 48,
                "num_heads": 2,
                "patch_size": 8,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
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
