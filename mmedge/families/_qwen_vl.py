"""What the Qwen models that see share: pictures of any shape, and positions of three axes (Wang et al. 2024,
https://arxiv.org/abs/2409.12191).

A picture keeps its shape. All that depends on its rows and columns is computed without torch, in the order of the
checkpoints' processors, and is an input of ``vision``; so one graph reads pictures of every shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from mmedge.core.family import Component, Config, Insertion, Prompt, Request
from mmedge.core.ports import Port, Tensors
from mmedge.families import _decoder_only as shared
from mmedge.families import _qwen_picture as picture

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

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
    text = shared.text_of(config)
    rows = Port(shared.FEATURES, "float32", ("groups", text["hidden_size"]))
    span = picture.groups_span(config["image"], text["max_position_embeddings"] - 1)
    return Component("vision", see, (pixels, places, *inputs), (rows, *outputs), sizes={"groups": span})


class Grid(NamedTuple):
    """How the groups of a picture, or of a piece of a video, lie."""

    slices: int
    """Of time."""
    rows: int
    columns: int
    interval: float = 1.0
    """Positions from one slice of time to the next."""


class Film(NamedTuple):
    """A video, every slice of which is a look."""

    looks: list[Tensors]
    text: str
    """In which every video token stands for a group."""
    grids: list[Grid]


Told: TypeAlias = Callable[[Config, int, int], Tensors]
"""What else a family's ``vision`` is told about the groups of a picture, by their rows and columns."""


def prepare(
    config: Config, tokenizer: Tokenizer, request: Request, film: Callable[[Config, Request], Film], told: Told
) -> Prompt:
    """Patches, tokens and positions as the checkpoint's processor and model make them; ``film`` reads a video.

    Raises:
        InputError: a picture is too long for its width, or the prompt for the model.
    """
    settings, looks, grids, video = config["image"], [], [], Film([], "", [])
    for pixels in shared.pictures_of(request):
        rows, columns = picture.grid(pixels.shape[0], pixels.shape[1], settings)
        looks.append(picture.look([pixels], rows, columns, settings) | told(config, rows, columns))
        grids.append(Grid(1, rows, columns))
    if request.frames:
        video = film(config, request)
    texts = [config["text"]["image_token"] * (rows * columns) for _, rows, columns, _ in grids]
    made = shared.prompt(config, tokenizer, request, texts, [*looks, *video.looks], video.text)
    is_seen = np.isin(made.tokens, (shared.image_token_id(config), config["model"]["video_token_id"]))
    seen = Insertion(shared.FEATURES, shared.ROWS, np.flatnonzero(is_seen))
    found = positions(is_seen, [*grids, *video.grids])
    return msgspec.structs.replace(made, insertions=(seen,) if made.looks else (), positions=found)


def nothing(config: Config, rows: int, columns: int) -> Tensors:
    """Where ``vision`` is told of nothing but the patches."""
    return {}


def positions(is_seen: np.ndarray, grids: Sequence[Grid]) -> np.ndarray:
    """Of every token, int64 ``[3, 1, length]``: those of a text count on along all axes, those of groups say slice, row
    and column, and what follows goes on after the larger of the last two."""
    found = np.empty((AXES, 1, len(is_seen)), np.int64)
    places, token, position = np.flatnonzero(is_seen), 0, 0
    for slices, rows, columns, interval in grids:
        begin, places = places[0], places[slices * rows * columns :]
        end = begin + slices * rows * columns
        found[:, :, token:begin] = np.arange(position, position + begin - token)
        position += begin - token
        times = (np.arange(slices, dtype=np.float32) * np.float32(interval)).astype(np.int64)
        lie = np.meshgrid(times, np.arange(rows), np.arange(columns), indexing="ij")
        found[:, 0, begin:end] = position + np.stack(lie).reshape(AXES, -1)
        token, position = end, position + max(rows, columns)
    found[:, :, token:] = np.arange(position, position + len(is_seen) - token)
    return found


# What follows runs only while exporting, on the modules of `transformers`.


def pixels(processor: Any, pixels: np.ndarray) -> tuple[Tensors, ...]:
    """Patches of the checkpoint's own processor, by groups."""
    from PIL import Image

    made = processor.image_processor([Image.fromarray(pixels)], return_tensors="np")["pixel_values"]
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
