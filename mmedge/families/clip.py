"""CLIP: pictures and texts in one space (Radford et al. 2021, https://arxiv.org/abs/2103.00020)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port, Span, Tensors
from mmedge.families import _dual_encoder as shared
from mmedge.families import _layers as layers
from mmedge.media.image import preprocess

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

OLD_END = 2
"""What the configuration of the first checkpoints calls the last token of a text by mistake; there it is the token with
the largest number."""


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` and ``text``."""
    model = config["model"]
    side, width = model["vision_config"]["image_size"], model["projection_dim"]
    length = Span(1, 16, model["text_config"]["max_position_embeddings"])
    return (
        Component(
            name="vision",
            forward=_see,
            inputs=(Port("pixel_values", "float32", ("batch", 3, side, side)),),
            outputs=(shared.embeds("image", width),),
            sizes={"batch": shared.BATCH},
        ),
        Component(
            name="text",
            forward=_read,
            inputs=(Port("text_ids", "int64", ("batch", "text_length")),),
            outputs=(shared.embeds("text", width),),
            sizes={"batch": shared.BATCH, "text_length": length},
        ),
    )


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Pictures as the checkpoint's processor makes them, and the text with the tokens around it."""
    shared.refuse_others(request, ("image", "text"))
    feeds: Tensors = {}
    if request.images:
        feeds["pixel_values"] = np.concatenate([preprocess(image, config["image"]) for image in request.images])
    if request.text is not None:
        most = config["model"]["text_config"]["max_position_embeddings"]
        feeds["text_ids"] = np.array([shared.token_ids(config, tokenizer, request.text, most)], np.int64)
    return Prompt(feeds)


# What follows runs only while exporting, on the modules of `transformers`.


def _see(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
    import torch

    tower = model.vision_model
    patches = tower.embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
    first = tower.embeddings.class_embedding.expand(patches.shape[0], 1, -1)
    hidden = torch.cat([first, patches], dim=1) + tower.embeddings.position_embedding.weight[None]
    hidden = tower.pre_layrnorm(hidden)
    for layer in tower.encoder.layers:
        hidden = layers.encode(layer, hidden)
    return (shared.unit(model.visual_projection(tower.post_layernorm(hidden[:, 0]))),)


def _read(model: Any, text_ids: torch.Tensor) -> tuple[torch.Tensor]:
    """What follows the end of a text does not count: a token sees those before it alone."""
    import torch

    tower, length = model.text_model, text_ids.shape[1]
    positions = tower.embeddings.position_embedding.weight[:length]
    hidden = tower.embeddings.token_embedding(text_ids) + positions[None]
    for layer in tower.encoder.layers:
        hidden = layers.encode(layer, hidden, causal=True)
    end = model.config.text_config.eos_token_id
    marks = text_ids if end == OLD_END else (text_ids == end).int()
    rows = torch.arange(text_ids.shape[0])
    last = tower.final_layer_norm(hidden[rows, marks.argmax(-1)])
    return (shared.unit(model.text_projection(last)),)


_TINY_LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.2,
}

FAMILY = Family(
    name="clip",
    architectures=("CLIPModel",),
    tasks=shared.tasks,
    components=components,
    prepare=prepare,
    reference=partial(shared.reference, padding=True),
    similarity=shared.softmax,
    tiny=(
        {
            "model_type": "clip",
            "architectures": ["CLIPModel"],
            "projection_dim": 24,
            "vision_config": {**_TINY_LAYERS, "image_size": 32, "patch_size": 8},
            "text_config": {
                **_TINY_LAYERS,
                "vocab_size": 288,
                "max_position_embeddings": 77,
                "bos_token_id": 0,
                "eos_token_id": 1,
                "pad_token_id": 1,
            },
        },
    ),
)
