"""SigLIP 2 for pictures of any shape (Tschannen et al. 2025, https://arxiv.org/abs/2502.14786): a picture becomes as
many patches as fit, whatever its shape, and the table of positions is resized to that shape.

Resizing is linear along each side, so here each patch comes with the weights of the table's rows and columns, and the
graph multiplies. Where a picture is one patch wide, some hundred times as high as wide, torch 2.13 resizes the table
wrongly; here it is right.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port, Span, Tensors
from mmedge.families import _dual_encoder as shared
from mmedge.families import _layers as layers
from mmedge.families import _siglip as siglip
from mmedge.media.image import normalise_as, resize

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

LARGEST_SCALE, CLOSE = 100.0, 1e-5
"""Where the search for a picture's scale begins, and how near it ends."""


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` and ``text``."""
    vision, most = config["model"]["vision_config"], config["image"]["max_num_patches"]
    table, numbers = math.isqrt(vision["num_patches"]), vision["num_channels"] * vision["patch_size"] ** 2
    see = Component(
        name="vision",
        forward=_see,
        inputs=(
            Port("pixel_values", "float32", ("batch", "patches", numbers)),
            Port("row_weights", "float32", ("batch", "patches", table)),
            Port("column_weights", "float32", ("batch", "patches", table)),
            Port("pixel_mask", "int64", ("batch", "patches")),
        ),
        outputs=(shared.embeds("image", vision["hidden_size"]),),
        sizes={"batch": shared.BATCH, "patches": Span(1, most, most)},
    )
    return (see, siglip.text_component(config))


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Pictures as patches, and the text filled up to its one length."""
    shared.refuse_others(request, ("image", "text"))
    feeds: Tensors = {}
    if request.images:
        feeds = _together([_patches(image, config) for image in request.images])
    if request.text is not None:
        feeds["text_ids"] = siglip.full_text(config, tokenizer, request.text)
    return Prompt(feeds)


def _patches(pixels: np.ndarray, config: Config) -> Tensors:
    """The inputs of ``vision`` for one picture."""
    settings = config["image"]
    patch, table = settings["patch_size"], math.isqrt(config["model"]["vision_config"]["num_patches"])
    height, width = pixels.shape[:2]
    rows, columns = patch_grid(height, width, patch, settings["max_num_patches"])
    planes = normalise_as(resize(pixels, rows * patch, columns * patch, settings["resample"]), settings)
    patches = planes.reshape(3, rows, patch, columns, patch).transpose(1, 3, 2, 4, 0)
    down, across = resizing(table, rows), resizing(table, columns)
    return {
        "pixel_values": patches.reshape(1, rows * columns, -1),
        "row_weights": np.repeat(down, columns, axis=0)[None],
        "column_weights": np.tile(across, (rows, 1))[None],
        "pixel_mask": np.ones((1, rows * columns), np.int64),
    }


def _together(pictures: list[Tensors]) -> Tensors:
    """Those with fewer patches are filled up with some that the mask hides."""
    most = max(picture["pixel_mask"].shape[1] for picture in pictures)

    def filled(array: np.ndarray) -> np.ndarray:
        return np.pad(array, [(0, 0), (0, most - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])

    return {name: np.concatenate([filled(picture[name]) for picture in pictures]) for name in pictures[0]}


def patch_grid(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Rows and columns of patches: at the largest scale, found by halving, with at most ``most`` of them."""

    def grid(scale: float) -> tuple[int, int]:
        return max(1, math.ceil(height * scale / patch)), max(1, math.ceil(width * scale / patch))

    low, high = CLOSE / 10, LARGEST_SCALE
    while high - low >= CLOSE:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(grid(middle)) <= most else (low, middle)
    return grid(low)


def resizing(size: int, wanted: int) -> np.ndarray:
    """float32 ``[wanted, size]``: what each of ``wanted`` positions takes from each of ``size``, by a triangle as wide
    as a position of the coarser grid."""
    scale = size / wanted
    centers = (np.arange(wanted) + 0.5)[:, None] * scale
    weights = np.maximum(0, 1 - np.abs(np.arange(size) + 0.5 - centers) / max(scale, 1))
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


# What follows runs only while exporting, on the modules of `transformers`.


def _see(
    model: Any, pixel_values: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, pixel_mask: torch.Tensor
) -> tuple[torch.Tensor]:
    tower = model.vision_model
    weights = (rows[..., None] * columns[..., None, :]).flatten(2)
    positions = weights @ tower.embeddings.position_embedding.weight
    hidden = tower.embeddings.patch_embedding(pixel_values) + positions
    bias = (1 - pixel_mask[:, None, None].float()) * layers.UNSEEN
    for layer in tower.encoder.layers:
        hidden = layers.encode(layer, hidden, bias=bias)
    return (shared.unit(siglip.pooled(tower.head, tower.post_layernorm(hidden), bias)),)


def _shape(processor: Any) -> dict[str, int]:
    """As the checkpoint's files have it: the processor as a whole would take what is usual."""
    images = processor.image_processor
    return {"patch_size": images.patch_size, "max_num_patches": images.max_num_patches}


def _reference(model: Any, processor: Any, request: Request) -> Tensors:
    return siglip.reference(model, processor, request, **_shape(processor))


def _pixels(processor: Any, picture: np.ndarray) -> tuple[Tensors, ...]:
    """Without the patches that fill up."""
    made = processor.image_processor(picture, input_data_format="channels_last", return_tensors="np")
    return ({"pixel_values": made["pixel_values"][:, : int(made["pixel_attention_mask"].sum())]},)


FAMILY = Family(
    name="siglip2",
    architectures=("Siglip2Model",),
    tasks=shared.tasks,
    components=components,
    prepare=prepare,
    reference=_reference,
    similarity=shared.sigmoid,
    pixels=_pixels,
    tiny=(
        {
            "model_type": "siglip2",
            "architectures": ["Siglip2Model"],
            "vision_config": {**siglip.TINY_LAYERS, "num_patches": 36, "patch_size": 8},
            "text_config": {**siglip.TINY_TEXT, "vocab_size": 400, "pad_token_id": 0},
        },
    ),
)
