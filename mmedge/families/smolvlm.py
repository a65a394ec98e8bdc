"""SmolVLM: answers about pictures by a small language model (Marafioti et al. 2025, https://arxiv.org/abs/2504.05299).

A picture is scaled to a longest side and cut into square tiles, beside one of the whole; a frame of a video is one
tile, and the prompt says when it is shown. ``vision`` (SigLIP, and a connector that puts neighbouring patches into one
row) reads one tile at a time.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port, Tensors
from mmedge.families import _decoder_only as shared
from mmedge.families import _layers as layers
from mmedge.families import _video
from mmedge.media.image import normalise_as, resize
from mmedge.media.words import in_words

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

LARGEST_SIDE = 4096
"""Pixels that the processor scales a picture to at most."""

VIDEO_SETTINGS = {
    "do_resize": True,
    "max_image_size": {"longest_edge": 364},
    "resample": 1,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
"""Where a checkpoint does not say otherwise."""

VIDEO_SIZE = {"longest_edge": 4 * 364}
"""The same of what frames are scaled to before they are made square."""

DECODER = shared.Decoder(text=lambda model: model.model.text_model)


def tasks(config: Config) -> tuple[str, ...]:
    """All that a conversation can be about."""
    return shared.TASKS


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one tile, ``embed`` and ``decoder``."""
    vision, text = config["model"]["vision_config"], shared.text_of(config)
    side = vision["image_size"]
    pixels = Port("pixel_values", "float32", (1, 3, side, side))
    rows = Port(shared.FEATURES, "float32", (rows_of_a_tile(config), text["hidden_size"]))
    return shared.components(config, Component("vision", _see, (pixels,), (rows,)), DECODER)


def rows_of_a_tile(config: Config) -> int:
    """After the connector."""
    vision = config["model"]["vision_config"]
    return int((vision["image_size"] // vision["patch_size"]) ** 2 // config["model"]["scale_factor"] ** 2)


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Tiles and tokens as the checkpoint's processor makes them."""
    cut = [tiles_of(picture, config["image"]) for picture in shared.pictures_of(request)]
    texts = [_written(config, rows, columns) for _, rows, columns in cut]
    squares = [*(tile for tiles, _, _ in cut for tile in tiles), *frames_of(config, request)]
    looks = [{"pixel_values": square} for square in squares]
    return shared.prompt(config, tokenizer, request, texts, looks, _told(config, request))


def tiles_of(picture: np.ndarray, settings: Config) -> tuple[list[np.ndarray], int, int]:
    """Tiles, float32 ``[1, 3, side, side]``, and in how many rows and columns they lie; 0 where the picture is whole.
    With several the last is the whole picture again."""
    side, resample = settings["max_image_size"]["longest_edge"], settings.get("resample", 1)
    if settings.get("do_resize", True):
        picture = resize(picture, *_scaled(picture, settings["size"]), resample)
    if not settings.get("do_image_splitting", True):
        return [normalise_as(resize(picture, side, side, resample), settings)], 0, 0
    picture = resize(picture, *_whole_tiles(picture, side), resample)
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    if rows == columns == 1:
        return [normalise_as(picture, settings)], 0, 0
    corners = [(row * side, column * side) for row in range(rows) for column in range(columns)]
    tiles = [picture[top : top + side, left : left + side] for top, left in corners]
    return [normalise_as(tile, settings) for tile in (*tiles, resize(picture, side, side, resample))], rows, columns


def _scaled(picture: np.ndarray, size: Config) -> tuple[int, int]:
    height, width = picture.shape[:2]
    if "longest_edge" not in size:
        return size["height"], size["width"]
    longest = size["longest_edge"]
    ratio = width / height
    if width >= height:
        width, height = longest, int(longest / ratio)
        height += height % 2
    else:
        height, width = longest, int(longest * ratio)
        width += width % 2
    height, width = max(height, 1), max(width, 1)
    ratio = width / height
    if width >= height and width > LARGEST_SIDE:
        width, height = LARGEST_SIDE, int(LARGEST_SIDE / ratio)
    elif height > width and height > LARGEST_SIDE:
        height, width = LARGEST_SIDE, int(LARGEST_SIDE * ratio)
    return max(height, 1), max(width, 1)


def _whole_tiles(picture: np.ndarray, side: int) -> tuple[int, int]:
    height, width = picture.shape[:2]
    ratio = width / height
    if width >= height:
        width = _multiple(width, side)
        height = _multiple(int(width / ratio), side)
    else:
        height = _multiple(height, side)
        width = _multiple(int(height * ratio), side)
    return height, width


def _multiple(length: int, side: int) -> int:
    return max(1, -(-length // side)) * side


def _written(config: Config, rows: int, columns: int) -> str:
    """What stands for a picture in the prompt."""
    around, image = "<fake_token_around_image>", config["text"]["image_token"]
    tile = image * config["processor"].get("image_seq_len", rows_of_a_tile(config))
    whole = f"{around}<global-img>{tile}{around}"
    if not rows:
        return whole
    lines = (
        "".join(f"{around}<row_{row + 1}_col_{column + 1}>{tile}" for column in range(columns)) for row in range(rows)
    )
    return "".join(f"{line}\n" for line in lines) + f"\n{whole}"


def frames_of(config: Config, request: Request) -> list[np.ndarray]:
    """Each frame of a video as one tile, float32 ``[1, 3, side, side]``."""
    said = _video.settings(config)
    size = said.get("video_sampling", {}).get("video_size", VIDEO_SIZE)
    settings = {**VIDEO_SETTINGS, "size": size, **said}
    return [normalise_as(_squared(frame, settings), settings) for frame in request.frames]


def _squared(frame: np.ndarray, settings: Config) -> np.ndarray:
    """Scaled twice, as whole pictures are."""
    if not settings["do_resize"]:
        return frame
    size, side, resample = settings["size"], settings["max_image_size"]["longest_edge"], settings["resample"]
    if "longest_edge" in size:
        size = {"longest_edge": min(size["longest_edge"], LARGEST_SIDE)}
    return resize(resize(frame, *_scaled(frame, size), resample), side, side, resample)


def _told(config: Config, request: Request) -> str:
    """What stands for a video in the prompt; it is said to end with its last frame."""
    if not request.frames:
        return ""
    seconds = _video.seconds(request)
    count, length = in_words(len(seconds)), timedelta(seconds=int(seconds[-1]))
    clocks = (f"{int(second // 60):02d}:{int(second % 60):02d}" for second in seconds)
    shown = "".join(f"\nFrame from {clock}:{_written(config, 0, 0)}" for clock in clocks)
    return f"You are provided the following series of {count} frames from a {length} [H:MM:SS] video.\n{shown}\n\n"


# What follows runs only while exporting, on the modules of `transformers`.


def pixels(processor: Any, picture: np.ndarray) -> tuple[Tensors, ...]:
    """Tiles of the checkpoint's own processor."""
    from PIL import Image

    made = processor.image_processor([[Image.fromarray(picture)]], return_tensors="np")["pixel_values"][0]
    return tuple({"pixel_values": tile[None]} for tile in made)


def _see(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
    vision = model.model.vision_model
    embeddings = vision.embeddings
    hidden = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
    hidden = hidden + embeddings.position_embedding.weight[patch_positions(embeddings)][None]
    for layer in vision.encoder.layers:
        hidden = layers.encode(layer, hidden)
    return (model.model.connector(vision.post_layernorm(hidden))[0],)


def patch_positions(embeddings: Any) -> Any:
    """Rows of the position table for a tile without padding, int64 ``[patches]``.

    The model finds them by comparing fractions in float32, which for some sizes are rounded into the bucket beside.
    """
    import torch

    side = embeddings.num_patches_per_side
    boundaries = (1 / side + np.arange(side - 1) * (1 / side)).astype(np.float32)
    fractions = np.arange(side, dtype=np.float32) * (np.float32(1) / np.float32(side))
    buckets = np.searchsorted(boundaries, np.minimum(fractions, np.float32(1 - 1e-6)), side="right")
    return torch.from_numpy((buckets[:, None] * side + buckets[None]).reshape(-1))


_TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "initializer_range": 0.2,
}
_TINY_TEXT = {
    "model_type": "llama",
    "vocab_size": 288,
    "hidden_size": 64,  # heads of 16, which the attention of ONNX Runtime's own asks for
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}

FAMILY = Family(
    name="smolvlm",
    architectures=("SmolVLMForConditionalGeneration",),
    tasks=tasks,
    components=components,
    prepare=prepare,
    generate=shared.generate,
    pixels=pixels,
    tiny=(
        {
            "model_type": "smolvlm",
            "architectures": ["SmolVLMForConditionalGeneration"],
            "text_config": _TINY_TEXT,
            "vision_config": _TINY_VISION,
            "scale_factor": 2,
            "image_token_id": 4,
            "pad_token_id": 0,
            "tie_word_embeddings": False,
        },
    ),
)
