"""How the Qwen models that see cut pictures: scaled to whole groups of patches, each of which becomes one row among the
tokens. The order is group by group, line by line, and within a group patch by patch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mmedge.core.family import Config
from mmedge.core.ports import Span, Tensors
from mmedge.errors import InputError
from mmedge.media.image import normalise, resize

LONGEST = 200
"""Times its other side that a picture may be long."""

USUAL_PIXELS = 640 * 480
"""Of pictures that engines are tuned for."""


def groups_span(settings: Config, most_rows: int) -> Span:
    """How many groups the checkpoint's processor makes of a picture, of which the model can read at most so many."""
    least, most = (settings["size"][edge] / side_of_group(settings) ** 2 for edge in ("shortest_edge", "longest_edge"))
    rounded_up = least + math.sqrt(LONGEST * least) + math.sqrt(least / LONGEST) + 1
    largest = int(max(most, math.sqrt(LONGEST * most), rounded_up if rounded_up > most else 0))
    largest = min(largest, most_rows)
    smallest = max(1, min(math.ceil(least), int(most / 4)))  # either side may lose almost half of itself
    usual = USUAL_PIXELS // side_of_group(settings) ** 2
    return Span(smallest, max(smallest, min(usual, largest)), largest)


def side_of_group(settings: Config) -> int:
    """Pixels."""
    return int(settings["patch_size"] * settings["merge_size"])


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
