"""Gemma 3: conversations about pictures (Gemma Team 2025, https://arxiv.org/abs/2503.19786).

A picture is scaled to a square, whatever its shape, and read by SigLIP; the mean of each small square of patches is a
row. Most layers of the text part look back no farther than a window, the others over everything, each kind with
rotations of its own; and the rows of one picture see each other whatever their order.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port, Tensors
from mmedge.errors import ModelError
from mmedge.families import _decoder_only as shared
from mmedge.families import _layers as layers
from mmedge.families import _video
from mmedge.media.image import preprocess

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

ROTATIONS = ("default", "linear")
"""Kinds of frequencies that do not depend on how long a text is."""


def tasks(config: Config) -> tuple[str, ...]:
    """All that a conversation can be about."""
    return shared.TASKS


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one picture, ``embed`` and ``decoder``.

    Raises:
        ModelError: it asks for what no published checkpoint does.
    """
    vision, text = config["model"]["vision_config"], shared.text_of(config)
    _refuse_unknown(config["image"], text)
    side = vision["image_size"]
    pixels = Port("pixel_values", "float32", (1, 3, side, side))
    rows = Port(shared.FEATURES, "float32", (rows_of_a_picture(config), text["hidden_size"]))
    return shared.components(config, Component("vision", _see, (pixels,), (rows,)), DECODER)


def _refuse_unknown(image: Config, text: Config) -> None:
    if image.get("do_pan_and_scan"):
        raise ModelError(
            "the checkpoint asks for pictures to be read in pieces, too (`do_pan_and_scan`), which is not supported",
            hint="set it to false in preprocessor_config.json: the processor of `transformers` leaves it out as well",
        )
    if text.get("use_bidirectional_attention"):
        raise ModelError("this Gemma reads texts in both directions: it is made for embeddings, not for answers")
    for kind, rotation in text["rope_parameters"].items():
        if rotation["rope_type"] not in ROTATIONS:
            raise ModelError(
                f"the rotations of `{kind}` are of the kind `{rotation['rope_type']}`, which is not supported",
                hint=f"supported are: {', '.join(ROTATIONS)}",
            )


def rows_of_a_picture(config: Config) -> int:
    """After the mean of neighbours."""
    vision = config["model"]["vision_config"]
    patches = int(vision["image_size"] // vision["patch_size"])
    together = patches // math.isqrt(config["model"]["mm_tokens_per_image"])
    return int(patches // together) ** 2


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Squares and tokens as the checkpoint's processor makes them."""
    _video.refuse(request)
    pictures = shared.pictures_of(request)
    looks = [{"pixel_values": preprocess(picture, _settings(config))} for picture in pictures]
    prompt = shared.prompt(config, tokenizer, request, [_written(config)] * len(pictures), looks)
    return msgspec.structs.replace(prompt, along={"blocks": blocks_of(prompt.tokens, shared.image_token_id(config))})


def _written(config: Config) -> str:
    """What stands for a picture in the prompt."""
    rows = "<image_soft_token>" * config["processor"].get("image_seq_length", rows_of_a_picture(config))
    return f"\n\n{config['text']['image_token']}{rows}<end_of_image>\n\n"


def _settings(config: Config) -> Config:
    """Without those of how pictures would be cut into pieces."""
    return {name: value for name, value in config["image"].items() if "pan_and_scan" not in name}


def blocks_of(tokens: np.ndarray, image_token: int) -> np.ndarray:
    """int64 ``[1, length]``: rows of a picture have its number, from 1 on, everything else 0."""
    is_image = tokens == image_token
    begins = is_image & ~np.concatenate([[False], is_image[:-1]])
    return np.where(is_image, np.cumsum(begins), 0).astype(np.int64)[None]


# What follows runs only while exporting, on the modules of `transformers`.


def pixels(processor: Any, picture: np.ndarray) -> tuple[Tensors, ...]:
    """The square of the checkpoint's own processor."""
    from PIL import Image

    made = processor(images=[Image.fromarray(picture)], text=processor.boi_token, return_tensors="np")
    return tuple({"pixel_values": square[None]} for square in made["pixel_values"])


def _see(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
    projector = model.model.multi_modal_projector
    patches = layers.siglip(model.model.vision_tower, pixel_values)
    grid = patches.transpose(1, 2).unflatten(2, (projector.patches_per_image, projector.patches_per_image))
    means = projector.avg_pool(grid).flatten(2).transpose(1, 2)
    normalised = layers.normalised(projector.mm_soft_emb_norm, means, DECODER.norm_offset)
    return ((normalised @ projector.mm_input_projection_weight)[0],)


def _angles(text: Any, position_ids: torch.Tensor, layer: int) -> torch.Tensor:
    frequencies = getattr(text.rotary_emb, f"{text.config.layer_types[layer]}_inv_freq")
    return position_ids[..., None].float() * frequencies.float()


DECODER = shared.Decoder(
    text=lambda model: model.model.language_model,
    angles=_angles,
    norm_offset=1.0,
    blocks=True,
    strict_windows=True,
)

_TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 96,
    "patch_size": 8,
    "vision_use_head": False,
}
_TINY_TEXT = {
    "vocab_size": 448,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "max_position_embeddings": 1024,
    "sliding_window": 32,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 8.0},
    },
    "initializer_range": 0.2,
}

FAMILY = Family(
    name="gemma3",
    architectures=("Gemma3ForConditionalGeneration",),
    tasks=tasks,
    components=components,
    prepare=prepare,
    generate=shared.generate,
    pixels=pixels,
    tiny=(
        {
            "model_type": "gemma3",
            "architectures": ["Gemma3ForConditionalGeneration"],
            "text_config": _TINY_TEXT,
            "vision_config": _TINY_VISION,
            "mm_tokens_per_image": 36,
            "boi_token_index": 5,
            "eoi_token_index": 6,
            "image_token_index": 7,
        },
    ),
)
