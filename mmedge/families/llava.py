"""LLaVA: a picture as rows of a language model (Liu et al. 2023, https://arxiv.org/abs/2304.08485 and 2310.03744).

``vision`` is CLIP or SigLIP up to the layers that the checkpoint names, and a projector of two layers; it reads a whole
picture at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

TOWERS = {"clip_vision_model": 1, "siglip_vision_model": 0}
"""Vision towers, and how many rows they make before those of the patches."""

DECODER = shared.Decoder(text=lambda model: model.model.language_model)


def tasks(config: Config) -> tuple[str, ...]:
    """All that a conversation can be about."""
    return shared.TASKS


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one picture, ``embed`` and ``decoder``."""
    rows = Port(shared.FEATURES, "float32", (rows_of_a_picture(config), shared.text_of(config)["hidden_size"]))
    return shared.components(config, Component("vision", _see, (pixels_port(config),), (rows,)), DECODER)


def pixels_port(config: Config) -> Port:
    """A square picture."""
    side = config["model"]["vision_config"]["image_size"]
    return Port("pixel_values", "float32", (1, 3, side, side))


def rows_of_a_picture(config: Config) -> int:
    """What the tower makes of one square, as far as the checkpoint selects it.

    Raises:
        ModelError: it is a tower of another kind.
    """
    model = config["model"]
    vision = model["vision_config"]
    if (kind := vision["model_type"]) not in TOWERS:
        raise ModelError(f"the vision tower `{kind}` is not supported", hint=f"supported are: {', '.join(TOWERS)}")
    without_first = model["vision_feature_select_strategy"] == "default"
    return int((vision["image_size"] // vision["patch_size"]) ** 2 + TOWERS[kind] - without_first)


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Pictures and tokens as the checkpoint's processor makes them."""
    _video.refuse(request)
    looks = [{"pixel_values": _numbers(picture, config["image"])} for picture in shared.pictures_of(request)]
    text = config["text"]["image_token"] * rows_of_a_picture(config)
    return shared.prompt(config, tokenizer, request, [text] * len(looks), looks)


def _numbers(picture: np.ndarray, settings: Config) -> np.ndarray:
    # The processors of other towers have the same setting for something else.
    if settings.get("do_pad") and settings["image_processor_type"] == "LlavaImageProcessor":
        picture, settings = squared(picture, settings["image_mean"]), {**settings, "do_pad": False}
    return preprocess(picture, settings)


def squared(picture: np.ndarray, mean: Sequence[float]) -> np.ndarray:
    """In the middle of a square as large as its longer side, uint8, of a colour where numbers from 0 to 1 have their
    ``mean``."""
    height, width = picture.shape[:2]
    side = max(height, width)
    square = np.empty((side, side, 3), np.uint8)
    square[:] = [int(value * 255) for value in mean]
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return square


# What follows runs only while exporting, on the modules of `transformers`.


def pixels(processor: Any, picture: np.ndarray) -> tuple[Tensors, ...]:
    """Of the checkpoint's own processor."""
    from PIL import Image

    made = processor.image_processor([Image.fromarray(picture)], return_tensors="np")["pixel_values"]
    return ({"pixel_values": np.asarray(made)},)


def _see(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
    return (features(model, pixel_values),)


def features(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Rows of one square picture as the language model reads them, ``[rows, width]``."""
    import torch

    config = model.config
    named = config.vision_feature_layer
    states = hidden_states(model.model.vision_tower, pixel_values, [named] if isinstance(named, int) else named)
    first = int(config.vision_feature_select_strategy == "default")
    return model.model.multi_modal_projector(torch.cat([state[0, first:] for state in states], dim=-1))


def hidden_states(tower: Any, pixel_values: torch.Tensor, wanted: Sequence[int]) -> list[torch.Tensor]:
    """What the layers of a tower give, numbered from 0, the input of the first; no later layer than needed is run."""
    encoders = tower.encoder.layers
    numbers = [range(len(encoders) + 1)[index] for index in wanted]
    states = [_embedded(tower, pixel_values)]
    for layer in encoders[: max(numbers)]:
        states.append(layers.encode(layer, states[-1]))
    return [states[number] for number in numbers]


def _embedded(tower: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    import torch

    embeddings = tower.embeddings
    hidden = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
    if hasattr(embeddings, "class_embedding"):
        hidden = torch.cat([embeddings.class_embedding[None, None], hidden], dim=1)
    hidden = hidden + embeddings.position_embedding.weight[None]
    return tower.pre_layrnorm(hidden) if hasattr(tower, "pre_layrnorm") else hidden


_TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.2,
}
_TINY_TEXT = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}

FAMILY = Family(
    name="llava",
    architectures=("LlavaForConditionalGeneration",),
    tasks=tasks,
    components=components,
    prepare=prepare,
    generate=shared.generate,
    pixels=pixels,
    tiny=(
        {
            "model_type": "llava",
            "architectures": ["LlavaForConditionalGeneration"],
            "text_config": {"model_type": "llama", **_TINY_TEXT},
            "vision_config": {"model_type": "clip_vision_model", **_TINY_VISION},
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "image_token_index": 3,
        },
        {
            "model_type": "llava",
            "architectures": ["LlavaForConditionalGeneration"],
            "text_config": {"model_type": "qwen2", **_TINY_TEXT},
            "vision_config": {"model_type": "siglip_vision_model", "vision_use_head": False, **_TINY_VISION},
            "vision_feature_layer": [1, -1],
            "vision_feature_select_strategy": "full",
            "image_token_index": 3,
        },
    ),
)
