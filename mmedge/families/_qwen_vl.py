"""What the Qwen models that see share: pictures of any shape, and positions of three axes (Wang et al. 2024,
https://arxiv.org/abs/2409.12191).

A picture keeps its shape: it is scaled to whole groups of patches, each of which becomes one row among the tokens. All
that depends on how many rows and columns of groups there are is computed here, in the order of the checkpoints'
processors, and is an input of ``vision``; so one graph reads pictures of every shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np

from mmedge.core.family import Component, Config, Insertion, Prompt, Request
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
    for picture in shared.pictures_of(request):
        rows, columns = grid(picture.shape[0], picture.shape[1], settings)
        looks.append(look([picture], rows, columns, settings) | told(config, rows, columns))
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


def look(frames: Sequence[np.ndarray], rows: int, columns: int, settings: Config) -> Tensors:
    """Patches by groups, float32 ``[groups, patches of a group, values of a patch]``, and where they lie. A patch holds
    the same place of several frames, or of a picture several times."""
    patch, merge, depth = settings["patch_size"], settings["merge_size"], settings["temporal_patch_size"]
    planes = np.concatenate([_planes(frame, rows, columns, settings) for frame in frames])
    planes = np.repeat(planes, depth // len(frames), axis=0)
    cut = planes.reshape(depth, 3, rows, merge, patch, columns, merge, patch).transpose(2, 5, 3, 6, 1, 0, 4, 7)
    return {
        "pixel_values": cut.reshape(rows * columns, merge**2, -1),
        "patch_positions": patch_positions(rows, columns, merge),
    }


def _planes(picture: np.ndarray, rows: int, columns: int, settings: Config) -> np.ndarray:
    side = side_of_group(settings)
    if settings.get("do_resize", True):
        picture = resize(picture, rows * side, columns * side, settings.get("resample", 3))
    scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1
    if not settings.get("do_normalize", True):
        return normalise(picture, scale=scale)
    return normalise(picture, settings["image_mean"], settings["image_std"], scale)


def grid(height: int, width: int, settings: Config, frames: int = 1, counted: int = 1) -> tuple[int, int]:
    """Rows and columns of groups that a picture is scaled to, or each of so many frames, of which so many are counted
    when they are compared with the bounds.

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
    if counted * rows * columns * side**2 > size["longest_edge"]:
        shrink = math.sqrt(frames * height * width / size["longest_edge"])
        return max(1, math.floor(height / shrink / side)), max(1, math.floor(width / shrink / side))
    if counted * rows * columns * side**2 < size["shortest_edge"]:
        grow = math.sqrt(size["shortest_edge"] / (frames * height * width))
        return math.ceil(height * grow / side), math.ceil(width * grow / side)
    return rows, columns


def patch_positions(rows: int, columns: int, merge: int) -> np.ndarray:
    """Row and column of every patch, int64 ``[groups, patches of a group, 2]``."""
    row = np.arange(rows * merge).reshape(rows, 1, merge, 1)
    column = np.arange(columns * merge).reshape(1, columns, 1, merge)
    return np.stack(np.broadcast_arrays(row, column), -1).reshape(rows * columns, merge**2, 2)


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
