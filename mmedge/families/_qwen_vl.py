"""What the Qwen models that see share: pictures of any shape, and positions of three axes (Wang et al. 2024,
https://arxiv.org/abs/2409.12191).

A picture keeps its shape: it is scaled to whole groups of patches, each of which becomes one row among the tokens. All
that depends on how many rows and columns of groups there are is computed here, in the order of the checkpoints'
processors, and is an input of ``vision``; so one graph reads pictures of every shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mmedge.core.family import Component, Config, Prompt, Request
from mmedge.core.ports import Port, Span, Tensors
from mmedge.errors import InputError
from mmedge.families import _decoder_only as shared
from mmedge.media.image import normalise, resize

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

LONGEST = 200
"""Times its other side that a picture may be long."""

USUAL_PIXELS = 640 * 480
"""Of pictures that engines are tuned for."""

AXES = 3
"""Of a token's position: time, height and width."""


def tasks(config: Config) -> tuple[str, ...]:
    """All that a conversation can be about."""
    return shared.TASKS


def tower(
    config: Config, see: Callable[..., Any], inputs: Sequence[Port] = (), outputs: Sequence[Port] = ()
) -> Component:
    """``vision`` of one picture, with what a family adds to its inputs and outputs."""
    vision = config["model"]["vision_config"]
    patches = vision["spatial_merge_size"] ** 2
    values = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
    pixels = Port("pixel_values", "float32", ("groups", patches, values))
    places = Port("patch_positions", "int64", ("groups", patches, 2))
    rows = Port(shared.FEATURES, "float32", ("groups", shared.text_of(config)["hidden_size"]))
    return Component("vision", see, (pixels, places, *inputs), (rows, *outputs), sizes={"groups": groups_span(config)})


def groups_span(config: Config) -> Span:
    """How many groups the checkpoint's processor makes of a picture."""
    settings = config["image"]
    least, most = (settings["size"][edge] / side_of_group(settings) ** 2 for edge in ("shortest_edge", "longest_edge"))
    rounded_up = least + math.sqrt(LONGEST * least) + math.sqrt(least / LONGEST) + 1
    largest = int(max(most, math.sqrt(LONGEST * most), rounded_up if rounded_up > most else 0))
    largest = min(largest, shared.text_of(config)["max_position_embeddings"] - 1)
    smallest = max(1, min(math.ceil(least), int(most / 4)))  # either side may lose almost half of itself
    usual = USUAL_PIXELS // side_of_group(settings) ** 2
    return Span(smallest, max(smallest, min(usual, largest)), largest)


def side_of_group(settings: Config) -> int:
    """Pixels."""
    return int(settings["patch_size"] * settings["merge_size"])


def prepare(
    config: Config,
    tokenizer: Tokenizer,
    request: Request,
    more: Callable[[Config, int, int], Tensors] | None = None,
) -> Prompt:
    """Patches, tokens and positions as the checkpoint's processor and model make them; ``more(config, rows, columns)``
    gives what else ``vision`` is told about the groups of a picture.

    Raises:
        InputError: a picture is too long for its width, or the prompt for the model.
    """
    if request.frames:
        raise InputError("this model looks at pictures here, not at videos")
    settings, looks, grids = config["image"], [], []
    for picture in shared.pictures_of(request):
        groups, rows, columns = groups_of(picture, settings)
        places = patch_positions(rows, columns, settings["merge_size"])
        told = more(config, rows, columns) if more else {}
        looks.append({"pixel_values": groups, "patch_positions": places, **told})
        grids.append((rows, columns))
    texts = [config["text"]["image_token"] * (rows * columns) for rows, columns in grids]
    made = shared.prompt(config, tokenizer, request, texts, looks)
    is_picture = made.tokens == shared.image_token_id(config)
    return msgspec.structs.replace(made, positions=positions(is_picture, grids))


def groups_of(picture: np.ndarray, settings: Config) -> tuple[np.ndarray, int, int]:
    """Patches by groups, float32 ``[groups, patches of a group, values of a patch]``, and in how many rows and columns
    the groups lie. A patch holds a picture several times, as if it were so many frames of a video."""
    patch, merge, side = settings["patch_size"], settings["merge_size"], side_of_group(settings)
    if settings.get("do_resize", True):
        height, width = picture.shape[:2]
        rows, columns = grid(height, width, settings)
        picture = resize(picture, rows * side, columns * side, settings.get("resample", 3))
    rows, columns = picture.shape[0] // side, picture.shape[1] // side
    planes = _numbers(picture, settings)[0].reshape(3, rows, merge, patch, columns, merge, patch)
    patches = planes.transpose(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None]
    frames = np.repeat(patches, settings["temporal_patch_size"], axis=5)
    return frames.reshape(rows * columns, merge**2, -1), rows, columns


def grid(height: int, width: int, settings: Config) -> tuple[int, int]:
    """Rows and columns of groups that a picture is scaled to.

    Raises:
        InputError: it is too long.
    """
    if max(height, width) > LONGEST * min(height, width):
        raise InputError(
            f"a picture of {width}x{height} pixels is more than {LONGEST} times as long as wide",
            hint="crop it to a less extreme shape",
        )
    side, size = side_of_group(settings), settings["size"]
    rows, columns = round(height / side), round(width / side)
    if rows * columns * side**2 > size["longest_edge"]:
        shrink = math.sqrt(height * width / size["longest_edge"])
        return max(1, math.floor(height / shrink / side)), max(1, math.floor(width / shrink / side))
    if rows * columns * side**2 < size["shortest_edge"]:
        grow = math.sqrt(size["shortest_edge"] / (height * width))
        return math.ceil(height * grow / side), math.ceil(width * grow / side)
    return rows, columns


def _numbers(picture: np.ndarray, settings: Config) -> np.ndarray:
    scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
    if not settings.get("do_normalize", True):
        return normalise(picture, scale=scale)
    return normalise(picture, settings["image_mean"], settings["image_std"], scale)


def patch_positions(rows: int, columns: int, merge: int) -> np.ndarray:
    """Row and column of every patch, int64 ``[groups, patches of a group, 2]``."""
    row = np.arange(rows * merge).reshape(rows, 1, merge, 1)
    column = np.arange(columns * merge).reshape(1, columns, 1, merge)
    return np.stack(np.broadcast_arrays(row, column), -1).reshape(rows * columns, merge**2, 2)


def positions(is_picture: np.ndarray, grids: Sequence[tuple[int, int]]) -> np.ndarray:
    """Of every token, int64 ``[3, 1, length]``: those of a text count on along all axes, those of a picture's groups
    say row and column, and what follows goes on after the larger of the two."""
    found = np.empty((AXES, 1, len(is_picture)), np.int64)
    places, token, position = np.flatnonzero(is_picture), 0, 0
    for rows, columns in grids:
        begin, places = places[0], places[rows * columns :]
        end = begin + rows * columns
        found[:, :, token:begin] = np.arange(position, position + begin - token)
        position += begin - token
        lie = np.broadcast_arrays(0, np.arange(rows)[:, None], np.arange(columns))
        found[:, 0, begin:end] = position + np.stack(lie).reshape(AXES, -1)
        token, position = end, position + max(rows, columns)
    found[:, :, token:] = np.arange(position, position + len(is_picture) - token)
    return found


# What follows runs only while exporting, on the modules of `transformers`.


def pixels(processor: Any, picture: np.ndarray) -> tuple[Tensors, ...]:
    """Patches of the checkpoint's own processor, by groups."""
    from PIL import Image

    made = processor.image_processor([Image.fromarray(picture)], return_tensors="np")["pixel_values"]
    return ({"pixel_values": made.reshape(-1, processor.image_processor.merge_size**2, made.shape[-1])},)


def embedded(visual: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """Rows of the patches, ``[1, patches, width]``."""
    import torch

    projection = visual.patch_embed.proj
    rows = torch.nn.functional.linear(pixel_values, projection.weight.flatten(1), projection.bias)
    return rows.flatten(0, 1)[None]


def turns(visual: Any, patch_positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, ``[1, patches, head_dim / 2]``: half of them by row, half by column."""
    angles = patch_positions[..., None].float() * visual.rotary_pos_emb.inv_freq.float()
    angles = angles.flatten(2).flatten(0, 1)[None]
    return angles.cos(), angles.sin()


def attended(attention: Any, hidden: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Attention of every patch to every other, ``[1, patches, width]``."""
    import torch

    query, key, value = heads(attention, attention.qkv(hidden), turn)
    context = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return attention.proj(context.transpose(1, 2).flatten(2))


def heads(
    attention: Any, joined: torch.Tensor, turn: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotated query and key, and value, ``[batch, heads, patches, head_dim]``, of all three side by side."""
    import torch

    split = joined.chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in split)
    rotate = torch.onnx.ops.rotary_embedding
    return rotate(query, *turn), rotate(key, *turn), value


def angles(axes: Callable[[Any], Sequence[int]]) -> Callable[[Any, torch.Tensor, int], torch.Tensor]:
    """Position times frequency, where ``axes(rotary)`` says along which axis each frequency counts."""

    def found(text: Any, position_ids: torch.Tensor, layer: int) -> torch.Tensor:
        import torch

        rotary = text.rotary_emb
        chosen = position_ids.index_select(0, torch.tensor(axes(rotary)))
        return chosen.permute(1, 2, 0).float() * rotary.inv_freq.float()

    return found


def by_section(rotary: Any) -> list[int]:
    """The axes one after the other: time has the highest frequencies."""
    return [section % AXES for section, size in enumerate(rotary.mrope_section) for _ in range(size)]


def in_turns(rotary: Any) -> list[int]:
    """Time, height, width, time... as far as height and width have frequencies; time has the others."""
    sections = rotary.mrope_section
    turns = (index % AXES for index in range(len(rotary.inv_freq)))
    return [axis if index < AXES * sections[axis] else 0 for index, axis in enumerate(turns)]
