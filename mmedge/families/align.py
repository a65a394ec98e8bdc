"""ALIGN: pictures by an EfficientNet (Tan and Le 2019, https://arxiv.org/abs/1905.11946) and texts by a BERT in one
space (Jia et al. 2021, https://arxiv.org/abs/2102.05918)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port, Span, Tensors
from mmedge.core.similarity import Similarity
from mmedge.errors import ModelError
from mmedge.families import _bert as bert
from mmedge.families import _dual_encoder as shared
from mmedge.media.image import preprocess

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` and ``text``."""
    model, (height, width) = config["model"], _size(config["image"])
    length = Span(1, 16, model["text_config"]["max_position_embeddings"])
    texts = tuple(Port(name, "int64", ("batch", "text_length")) for name in ("text_ids", "text_mask"))
    return (
        Component(
            name="vision",
            forward=_see,
            inputs=(Port("pixel_values", "float32", ("batch", 3, height, width)),),
            outputs=(shared.embeds("image", model["projection_dim"]),),
            sizes={"batch": shared.BATCH},
        ),
        Component(
            name="text",
            forward=_read,
            inputs=texts,
            outputs=(shared.embeds("text", model["projection_dim"]),),
            sizes={"batch": shared.BATCH, "text_length": length},
        ),
    )


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Pictures as the checkpoint's processor makes them, and the text with the tokens around it."""
    shared.refuse_others(request, ("image", "text"))
    feeds: Tensors = {}
    if request.images:
        settings = plain_settings(config["image"])
        feeds["pixel_values"] = np.concatenate([preprocess(image, settings) for image in request.images])
    if request.text is not None:
        most = config["model"]["text_config"]["max_position_embeddings"]
        feeds["text_ids"] = np.array([shared.token_ids(config, tokenizer, request.text, most)], np.int64)
        feeds["text_mask"] = np.ones_like(feeds["text_ids"])
    return Prompt(feeds)


def plain_settings(image: Config) -> dict[str, Any]:
    """Settings of an EfficientNet's pictures as one mean and one deviation: it may take 1 away after scaling, and
    divide by the deviation once more at the end."""
    none = np.zeros(3)
    mean, deviation = (np.asarray(image[key]) + none for key in ("image_mean", "image_std"))
    normal, again = image["do_normalize"], image.get("include_top", False)
    return {key: value for key, value in image.items() if key not in ("rescale_offset", "include_top")} | {
        "do_normalize": True,
        "image_mean": (float(image.get("rescale_offset", False)) + (mean if normal else none)).tolist(),
        "image_std": ((deviation if normal else none + 1) * (deviation if again else 1)).tolist(),
    }


def _size(image: Config) -> tuple[int, int]:
    """Height and width of what the processor makes.

    Raises:
        ModelError: not all pictures get the same.
    """
    size = image["crop_size"] if image.get("do_center_crop") else image["size"]
    if not {"height", "width"} <= size.keys():
        raise ModelError(
            f"the picture setting `size` = {size} is not supported", hint="height and width have to be said"
        )
    return size["height"], size["width"]


# What follows runs only while exporting, on the modules of `transformers`.


def _see(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
    """Its pooling is as large as any picture, so it is that of the whole."""
    tower = model.vision_model
    hidden = tower.embeddings(pixel_values)
    for block in tower.encoder.blocks:
        hidden = block(hidden)
    mean = tower.config.pooling_type == "mean"
    return (shared.unit(hidden.mean((2, 3)) if mean else hidden.amax((2, 3))),)


def _read(model: Any, text_ids: torch.Tensor, text_mask: torch.Tensor) -> tuple[torch.Tensor]:
    hidden = bert.read(model.text_model, text_ids, text_mask)
    return (shared.unit(model.text_projection(hidden[:, 0])),)


def similarity(model: Any) -> Similarity:
    """Divided by a temperature."""
    return Similarity(1 / float(model.temperature.detach()))


FAMILY = Family(
    name="align",
    architectures=("AlignModel",),
    tasks=shared.tasks,
    components=components,
    prepare=prepare,
    reference=shared.reference,
    similarity=similarity,
    tiny=(
        {
            "model_type": "align",
            "architectures": ["AlignModel"],
            "projection_dim": 24,
            "temperature_init_value": 0.5,
            "vision_config": {
                "image_size": 45,
                "width_coefficient": 1.0,
                "depth_coefficient": 1.2,
                "kernel_sizes": [3, 5, 3],
                "in_channels": [32, 8, 16],
                "out_channels": [8, 16, 24],
                "depthwise_padding": [1],
                "strides": [1, 2, 2],
                "num_block_repeats": [1, 1, 1],
                "expand_ratios": [1, 4, 4],
                "hidden_dim": 2560,
                "num_hidden_layers": 12,
            },
            "text_config": {
                "vocab_size": 64,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 96,
                "initializer_range": 0.3,
            },
        },
    ),
)
