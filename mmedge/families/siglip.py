"""SigLIP: pictures and texts in one space, each pair judged by itself (Zhai et al. 2023,
https://arxiv.org/abs/2303.15343). Checkpoints of SigLIP 2 for pictures of one size call themselves so too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port, Tensors
from mmedge.families import _dual_encoder as shared
from mmedge.families import _layers as layers
from mmedge.families import _siglip as siglip
from mmedge.media.image import preprocess

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` and ``text``."""
    vision = config["model"]["vision_config"]
    side = vision["image_size"]
    see = Component(
        name="vision",
        forward=_see,
        inputs=(Port("pixel_values", "float32", ("batch", 3, side, side)),),
        outputs=(shared.embeds("image", vision["hidden_size"]),),
        sizes={"batch": shared.BATCH},
    )
    return (see, siglip.text_component(config))


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Pictures as the checkpoint's processor makes them, and the text filled up to its one length."""
    shared.refuse_others(request, ("image", "text"))
    feeds: Tensors = {}
    if request.images:
        feeds["pixel_values"] = np.concatenate([preprocess(image, config["image"]) for image in request.images])
    if request.text is not None:
        feeds["text_ids"] = siglip.full_text(config, tokenizer, request.text)
    return Prompt(feeds)


# What follows runs only while exporting, on the modules of `transformers`.


def _see(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
    tower = model.vision_model
    return (shared.unit(siglip.pooled(tower.head, layers.siglip(tower, pixel_values))),)


FAMILY = Family(
    name="siglip",
    architectures=("SiglipModel",),
    tasks=shared.tasks,
    components=components,
    prepare=prepare,
    reference=siglip.reference,
    similarity=shared.sigmoid,
    tiny=(
        {
            "model_type": "siglip",
            "architectures": ["SiglipModel"],
            "vision_config": {**siglip.TINY_LAYERS, "image_size": 32, "patch_size": 8},
            "text_config": {**siglip.TINY_TEXT, "vocab_size": 400, "pad_token_id": 1},
        },
    ),
)
