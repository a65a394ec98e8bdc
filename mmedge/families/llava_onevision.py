"""LLaVA-OneVision: pictures of any size by a small language model (Li et al. 2024, https://arxiv.org/abs/2408.03326).

A picture on its own is read as a whole and again in tiles, whose rows are laid out as the picture is: what was padding
is taken away, what is too much is scaled down, and a row of its own ends every line. Where there are several pictures
each is read as a whole; so is each frame of a video, whose rows are then a quarter as many. ``vision`` (SigLIP and a
projector, as in LLaVA) reads one square at a time.
"""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from mmedge.core.family import Component, Config, Family, Insertion, Prompt, Request
from mmedge.core.ports import Port, Tensors
from mmedge.errors import ModelError
from mmedge.families import _any_resolution as any_resolution
from mmedge.families import _decoder_only as shared
from mmedge.families import _video, llava
from mmedge.media.image import preprocess

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

TILED = "picture_size"
"""Height and width in pixels, int64 ``[2]``, in the first look at a picture that tiles follow."""

FRAME = "frame"
"""Its number, int64 ``[1]``, in a look at a frame of a video."""

VIDEO_FEATURES = "video_features"

MOST = "anyres_max_"
"""What ``vision_aspect_ratio`` begins with, before the number of tiles whose rows are kept."""


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one square, which gives a row more than it has patches: the one that ends a line."""
    count = llava.rows_of_a_picture(config) + 1
    rows = Port(shared.FEATURES, "float32", (count, shared.text_of(config)["hidden_size"]))
    vision = Component("vision", _see, (llava.pixels_port(config),), (rows,))
    return shared.components(config, vision, llava.DECODER)


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Tiles and tokens as the checkpoint's processor makes them."""
    pictures = shared.pictures_of(request)
    looks, counts = _alone(config, pictures[0]) if len(pictures) == 1 else _together(config, pictures)
    texts = [config["text"]["image_token"] * count for count in counts]
    if not request.frames:
        return shared.prompt(config, tokenizer, request, texts, looks)
    side = ceil(_patches(config) / 2)
    video = config["text"]["video_token"] * (len(request.frames) * side**2 + 1)
    prompt = shared.prompt(config, tokenizer, request, texts, [*looks, *_frames(config, request)], video)
    places = np.flatnonzero(prompt.tokens == config["model"]["video_token_index"])
    insertions = (*(prompt.insertions if pictures else ()), Insertion(VIDEO_FEATURES, shared.ROWS, places))
    return replace(prompt, insertions=insertions)


def _alone(config: Config, picture: np.ndarray) -> tuple[list[Tensors], list[int]]:
    """Looks at the only picture of a conversation, and how many rows they become."""
    size = picture.shape[:2]
    looks = [{"pixel_values": tile} for tile in tiles_of(picture, config["image"])]
    looks[0][TILED] = np.array(size, np.int64)
    lines, columns = layout(config, size).size
    return looks, [llava.rows_of_a_picture(config) + lines * (columns + 1)]


def _together(config: Config, pictures: list[np.ndarray]) -> tuple[list[Tensors], list[int]]:
    """A look at each of several pictures, and how many rows each becomes."""
    settings = config["image"]
    squares = [llava.squared(picture, settings["image_mean"]) for picture in pictures]
    looks = [{"pixel_values": _numbers(square, settings)} for square in squares]
    return looks, [llava.rows_of_a_picture(config) + 1] * len(looks)


def _frames(config: Config, request: Request) -> list[Tensors]:
    """A look at each frame of a video."""
    frames = enumerate(_video.whole_frames(config, request))
    return [{"pixel_values": each, FRAME: np.array([number])} for number, each in frames]


def _patches(config: Config) -> int:
    """Along a side of a square."""
    vision = config["model"]["vision_config"]
    return int(vision["image_size"] // vision["patch_size"])


def tiles_of(picture: np.ndarray, settings: Config) -> list[np.ndarray]:
    """The whole picture and its tiles, line by line, each float32 ``[1, 3, side, side]``."""
    height, width = any_resolution.best_resolution(picture.shape[:2], settings["image_grid_pinpoints"])
    tiles = any_resolution.cut(picture, height, width, _side(settings), settings["resample"])
    return [_numbers(part, settings) for part in (picture, *tiles)]


def _side(settings: Config) -> int:
    """Of a tile in pixels."""
    size = settings["size"]
    return int(size.get("height") or size["shortest_edge"])


def _numbers(square: np.ndarray, settings: Config) -> np.ndarray:
    ours = {key: value for key, value in settings.items() if key not in ("image_grid_pinpoints", "do_pad")}
    side = _side(settings)
    return preprocess(square, {**ours, "size": {"height": side, "width": side}, "do_resize": True})


def layout(config: Config, size: tuple[int, ...]) -> any_resolution.Layout:
    """Of the tiles of a picture of ``size``, height and width in pixels."""
    settings = config["image"]
    height, width = any_resolution.best_resolution(size, settings["image_grid_pinpoints"])
    tiles = height // _side(settings), width // _side(settings)
    return any_resolution.layout(size, tiles, _patches(config), _most_tiles(config))


def _most_tiles(config: Config) -> int:
    said = str(config["model"]["vision_aspect_ratio"])
    if not said.startswith(MOST) or not said.removeprefix(MOST).isdecimal():
        raise ModelError(f"the setting `vision_aspect_ratio` = `{said}` is not supported", hint=f"it may be `{MOST}9`")
    return int(said.removeprefix(MOST))


def arrange(config: Config, prompt: Prompt, seen: list[Tensors]) -> Tensors:
    """The rows of the squares in the order in which the language model reads them."""
    found: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for look, values in zip(prompt.looks, seen, strict=True):
        found[FRAME in look].append(values[shared.FEATURES])
    pictures, frames = found[False], found[True]
    rows: Tensors = {}
    if pictures:
        size = prompt.looks[0].get(TILED)
        kept = pictures if size is None else _tiled(pictures, layout(config, tuple(size.tolist())))
        rows[shared.FEATURES] = np.concatenate(kept)
    if frames:
        rows[VIDEO_FEATURES] = np.concatenate([*(_halved(frame[:-1]) for frame in frames), frames[0][-1:]])
    return rows


def _tiled(squares: list[np.ndarray], found: any_resolution.Layout) -> list[np.ndarray]:
    """Rows of the whole picture, then those of its tiles with an end after every line."""
    whole, end = squares[0][:-1], squares[0][-1]
    lines = any_resolution.laid_out([square[:-1] for square in squares[1:]], found)
    ends = np.broadcast_to(end, (len(lines), 1, len(end)))
    return [whole, np.concatenate([lines, ends], axis=1).reshape(-1, len(end))]


def _halved(square: np.ndarray) -> np.ndarray:
    """Rows of a square, scaled to half as many along each side."""
    side = int(sqrt(len(square)))
    grid = square.reshape(side, side, -1)
    for axis in (0, 1):
        grid = any_resolution.scaled(grid, axis, ceil(side / 2))
    return grid.reshape(-1, square.shape[-1])


# What follows runs only while exporting, on the modules of `transformers`.


def pixels(processor: Any, picture: np.ndarray) -> tuple[Tensors, ...]:
    """Of the checkpoint's own processor."""
    from PIL import Image

    made = processor.image_processor([Image.fromarray(picture)], return_tensors="np")["pixel_values"][0]
    return tuple({"pixel_values": np.asarray(tile)[None]} for tile in made)


def _see(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
    import torch

    return (torch.cat([llava.features(model, pixel_values), model.model.image_newline[None]]),)


_TINY_VISION = {
    "model_type": "siglip_vision_model",
    "vision_use_head": False,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 44,
    "patch_size": 8,
}
_TINY_TEXT = {
    "model_type": "qwen2",
    "vocab_size": 288,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
}
_TINY_SIDES = range(44, 5 * 44, 44)

FAMILY = Family(
    name="llava_onevision",
    architectures=("LlavaOnevisionForConditionalGeneration",),
    tasks=llava.tasks,
    components=components,
    prepare=prepare,
    generate=shared.generate,
    pixels=pixels,
    arrange=arrange,
    tiny=(
        {
            "model_type": "llava_onevision",
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "text_config": _TINY_TEXT,
            "vision_config": _TINY_VISION,
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "vision_aspect_ratio": "anyres_max_9",
            "image_grid_pinpoints": [[height, width] for height in _TINY_SIDES for width in _TINY_SIDES],
            "image_token_index": 3,
            "video_token_index": 4,
        },
    ),
)
