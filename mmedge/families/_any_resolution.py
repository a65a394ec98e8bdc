"""Pictures cut into square tiles at the best of several sizes, and what is seen of these laid out as the picture is.

The way of LLaVA-NeXT (Liu et al. 2024, https://llava-vl.github.io/blog/2024-01-30-llava-next) and the models after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np

from mmedge.media.image import resize

SLACK = 1.1
"""How many times too long the sides may be before the rows are scaled down."""


class Layout(NamedTuple):
    """How the rows of tiles lie."""

    tiles: tuple[int, int]
    """Above and beside each other."""
    padding: tuple[int, int]
    """Rows above and below, left and right, that show nothing of the picture."""
    size: tuple[int, int]
    """Lines, and rows in each, after scaling."""


def best_resolution(size: tuple[int, ...], offered: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The one of the sizes, height and width, that shows most of a picture and then wastes least."""

    def merit(one: tuple[int, int]) -> tuple[int, int]:
        scale = min(one[1] / size[1], one[0] / size[0])
        shown = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        return shown, shown - one[0] * one[1]

    height, width = max(offered, key=merit)
    return height, width


def cut(picture: np.ndarray, height: int, width: int, side: int, resample: int) -> list[np.ndarray]:
    """Tiles of a picture scaled to fit, line by line, each uint8 ``[side, side, 3]``."""
    large = _padded(picture, height, width, resample)
    corners = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    return [large[top : top + side, left : left + side] for top, left in corners]


def _padded(picture: np.ndarray, height: int, width: int, resample: int) -> np.ndarray:
    """Scaled to fit, in the middle of black."""
    across, down = width / picture.shape[1], height / picture.shape[0]
    if across < down:
        fitted = resize(picture, min(ceil(picture.shape[0] * across), height), width, resample)
    else:
        fitted = resize(picture, height, min(ceil(picture.shape[1] * down), width), resample)
    top, left = (height - fitted.shape[0]) // 2, (width - fitted.shape[1]) // 2
    padded = np.zeros((height, width, 3), np.uint8)
    padded[top : top + fitted.shape[0], left : left + fitted.shape[1]] = fitted
    return padded


def layout(size: tuple[int, ...], tiles: tuple[int, int], patches: int, most: int) -> Layout:
    """Of a picture of ``size``, height and width in pixels, in tiles of ``patches`` along each side, no more of whose
    rows are kept than ``most`` tiles have."""
    height, width = size
    lines, columns = tiles[0] * patches, tiles[1] * patches
    above = left = 0
    if width / height > columns / lines:
        above = (lines - int(round(height * (columns / width), 7))) // 2
    else:
        left = (columns - int(round(width * (lines / height), 7))) // 2
    lines, columns = lines - 2 * above, columns - 2 * left
    ratio = sqrt(lines * columns / (most * patches**2))
    if ratio > SLACK:
        lines, columns = int(lines // ratio), int(columns // ratio)
    return Layout(tiles, (above, left), (lines, columns))


def laid_out(tiles: list[np.ndarray], found: Layout) -> np.ndarray:
    """Rows of tiles, each ``[patches, width]``, as they lie in the picture: ``[lines, columns, width]``."""
    (down, across), (above, left) = found.tiles, found.padding
    side, width = int(sqrt(len(tiles[0]))), tiles[0].shape[-1]
    grid = np.stack(tiles).reshape(down, across, side, side, width)
    grid = grid.transpose(0, 2, 1, 3, 4).reshape(down * side, across * side, width)
    grid = grid[above : len(grid) - above, left : grid.shape[1] - left]
    for axis, length in enumerate(found.size):
        grid = scaled(grid, axis, length)
    return grid


def scaled(grid: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Bilinear along one axis, without smoothing what is left out."""
    whole = grid.shape[axis]
    if whole == length:
        return grid
    places = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * (np.float32(whole) / np.float32(length))
    places = np.maximum(places - np.float32(0.5), 0)
    low = places.astype(np.int64)
    share = np.expand_dims(places - low.astype(np.float32), tuple(range(1, grid.ndim - axis)))
    scaled: np.ndarray = grid.take(low, axis) * (1 - share) + grid.take(np.minimum(low + 1, whole - 1), axis) * share
    return scaled
