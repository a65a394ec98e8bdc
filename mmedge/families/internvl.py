"""InternVL: answers about pictures in tiles whose grid fits the picture (Chen et al. 2024,
https://arxiv.org/abs/2404.16821; version 3: Zhu et al. 2025, https://arxiv.org/abs/2504.10479).

A picture is stretched to the grid of square tiles that is closest to its shape, with one of the whole picture after
them; a frame of a video is one tile. ``vision`` (InternViT, and a projector that reads neighbouring patches as one row)
reads one tile at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port, Tensors
from mmedge.errors import ModelError
from mmedge.families import _decoder_only as shared
from mmedge.families import _layers as layers
from mmedge.families import _video
from mmedge.media.image import normalise_as, resize

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from mmedge.media.text import Tokenizer

TEXTS = ("llama", "qwen2", "qwen3")
"""Kinds of language models that are spelled here; published checkpoints with others mix experts."""

BICUBIC = 3
"""Pillow's number for the filter that settings mean when they name none."""

DECODER = shared.Decoder(text=lambda model: model.model.language_model)


def tasks(config: Config) -> tuple[str, ...]:
    """All that a conversation can be about."""
    return shared.TASKS


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one tile, ``embed`` and ``decoder``.

    Raises:
        ModelError: the model reads its pictures in a way that no published one does, or is of experts.
    """
    _check_reading(config["model"])
    side = _side(config)
    pixels = Port("pixel_values", "float32", (1, 3, side, side))
    rows = Port(shared.FEATURES, "float32", (_rows_of_a_tile(config), shared.text_of(config)["hidden_size"]))
    return shared.components(config, Component("vision", _see, (pixels,), (rows,)), DECODER)


def _check_reading(model: Config) -> None:
    for name, known in (("vision_feature_layer", -1), ("vision_feature_select_strategy", "default")):
        if model.get(name, known) != known:
            raise ModelError(f"the model's `{name}` is {model[name]!r}, mmedge exports only {known!r}")
    if (kind := model["text_config"].get("model_type")) not in TEXTS:
        raise ModelError(f"the text part is a `{kind}` model", hint=f"mmedge exports: {', '.join(TEXTS)}")


def _side(config: Config) -> int:
    return _first(config["model"]["vision_config"]["image_size"])


def _first(size: int | list[int]) -> int:
    """Tiles and patches are squares, whose size some checkpoints write twice."""
    return size if isinstance(size, int) else size[0]


def _rows_of_a_tile(config: Config) -> int:
    """After the projector."""
    patches = _side(config) // _first(config["model"]["vision_config"]["patch_size"])
    return int(patches * config["model"]["downsample_ratio"]) ** 2


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Tiles and tokens as the checkpoint's processor makes them."""
    cut = [tiles_of(picture, config["image"]) for picture in shared.pictures_of(request)]
    texts = [_written(config, len(tiles)) for tiles in cut]
    squares = [*(tile for tiles in cut for tile in tiles), *_video.whole_frames(config, request)]
    looks = [{"pixel_values": square} for square in squares]
    frames = (f"Frame{number}: {_written(config, 1)}" for number in range(1, len(request.frames) + 1))
    return shared.prompt(config, tokenizer, request, texts, looks, "\n".join(frames))


def tiles_of(picture: np.ndarray, settings: Config) -> list[np.ndarray]:
    """Tiles row by row, float32 ``[1, 3, height, width]``; with several the last is the whole picture.

    ``crop_to_patches`` is not looked at: the checkpoint's processor always sets it for pictures.
    """
    height, width = settings["size"]["height"], settings["size"]["width"]
    resample, most = settings.get("resample", BICUBIC), settings.get("max_patches", 12)
    if most <= 1:
        whole = resize(picture, height, width, resample) if settings.get("do_resize", True) else picture
        return [normalise_as(whole, settings)]
    rows, columns = grid_of(picture.shape[:2], (height, width), settings.get("min_patches", 1), most)
    stretched = resize(picture, rows * height, columns * width, resample)
    tiles = [
        stretched[top : top + height, left : left + width]
        for top in range(0, rows * height, height)
        for left in range(0, columns * width, width)
    ]
    if len(tiles) > 1:
        tiles.append(resize(picture, height, width, resample))
    return [normalise_as(tile, settings) for tile in tiles]


def grid_of(picture: tuple[int, ...], tile: tuple[int, int], fewest: int, most: int) -> tuple[int, int]:
    """Rows and columns whose shape is closest to that of the picture, heights and widths in pixels.

    Of shapes that are equally close it is the larger grid, as long as the picture has more than half its pixels.
    """
    height, width = picture
    grids = [(rows, columns) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    best, closest = (1, 1), float("inf")
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        if rows * columns < fewest:
            continue
        gap = abs(width / height - columns / rows)
        large_enough = height * width > 0.5 * tile[0] * tile[1] * rows * columns
        if gap < closest or (gap == closest and large_enough):
            best, closest = (rows, columns), gap
    return best


def _written(config: Config, tiles: int) -> str:
    """What stands for a picture or a frame in the prompt."""
    processor = config["processor"]
    rows = tiles * int(processor.get("image_seq_length", _rows_of_a_tile(config)))
    return f"{processor['start_image_token']}{config['text']['image_token'] * rows}{processor['end_image_token']}"


# What follows runs only while exporting, on the modules of `transformers`.


def pixels(processor: Any, picture: np.ndarray) -> tuple[Tensors, ...]:
    """Tiles of the checkpoint's own processor."""
    from PIL import Image

    made = processor.image_processor([Image.fromarray(picture)], return_tensors="np", **processor.images_kwargs)
    return tuple({"pixel_values": tile[None]} for tile in made["pixel_values"])


def _see(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
    import torch

    vision, whole = model.model.vision_tower, model.model
    patches = vision.embeddings.patch_embeddings.projection(pixel_values)
    hidden = torch.cat([vision.embeddings.cls_token, patches.flatten(2).transpose(1, 2)], dim=1)
    if vision.embeddings.position_embeddings is not None:
        hidden = hidden + vision.embeddings.position_embeddings
    for layer in vision.encoder.layer:
        hidden = _encode(layer, hidden)
    seen = vision.layernorm(hidden)[:, 1:].unflatten(1, tuple(patches.shape[2:]))
    rows = whole.pixel_shuffle(seen, model.config.downsample_ratio).flatten(1, 2)
    return (whole.multi_modal_projector(rows)[0],)


def _encode(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """A layer of InternViT: what it adds is scaled by learned factors."""
    import torch

    attention, mlp = layer.attention, layer.mlp
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = layers.joined(parts)(_normalised(layer.layernorm_before, hidden)).chunk(3, dim=-1)
    query, key = _normalised(attention.q_norm, query), _normalised(attention.k_norm, key)
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    context = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    hidden = hidden + _scaled(attention.projection_layer, layer.lambda_1)(context.transpose(1, 2).flatten(2))
    inner = mlp.activation_fn(mlp.fc1(_normalised(layer.layernorm_after, hidden)))
    return hidden + _scaled(mlp.fc2, layer.lambda_2)(inner)


def _normalised(norm: Any, hidden: torch.Tensor) -> torch.Tensor:
    """The largest models have root mean squares where the others have layer norms, or nothing."""
    return layers.normalised(norm, hidden) if hasattr(norm, "variance_epsilon") else norm(hidden)


def _scaled(part: Any, factors: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A product whose results are multiplied by ``factors``; the exporter folds them into its weights."""
    import torch

    weight, bias = factors[:, None] * part.weight, factors * part.bias
    return lambda hidden: torch.nn.functional.linear(hidden, weight, bias)


_TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": [32, 32],
    "patch_size": [8, 8],
    "initializer_range": 0.2,
}
_TINY_TEXT = {
    "vocab_size": 288,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}
_TINY = {
    "model_type": "internvl",
    "architectures": ["InternVLForConditionalGeneration"],
    "image_token_id": 5,
    "image_seq_length": 4,
}

FAMILY = Family(
    name="internvl",
    architectures=("InternVLForConditionalGeneration",),
    tasks=tasks,
    components=components,
    prepare=prepare,
    generate=shared.generate,
    pixels=pixels,
    tiny=(
        _TINY
        | {
            "text_config": _TINY_TEXT | {"model_type": "qwen2"},
            "vision_config": _TINY_VISION | {"attention_bias": True},
            "tie_word_embeddings": True,
        },
        _TINY
        | {
            "text_config": _TINY_TEXT | {"model_type": "llama"},
            "vision_config": _TINY_VISION | {"norm_type": "rms_norm", "use_qk_norm": True},
            "tie_word_embeddings": False,
        },
    ),
)
