"""Layers that look at a square map in windows, every second one shifted by half a window (Liu et al. 2021,
https://arxiv.org/abs/2103.14030). Runs only while exporting, on the modules of `transformers`; maps are
``[batch, side, side, width]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmedge.families import _layers as layers

if TYPE_CHECKING:
    import torch

ELSEWHERE = -100.0
"""Added to scores between what a shift has only put side by side, as while training."""


def stage(blocks: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Layers of one resolution."""
    for block in blocks:
        hidden = hidden + _attend(block, block.layernorm_before(hidden))
        hidden = hidden + block.output(block.intermediate(block.layernorm_after(hidden)))
    return hidden


def merge(downsample: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Four neighbours as one, twice as wide."""
    parts = hidden.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [batch, rows, row, columns, column, width]
    joined = parts.permute(0, 1, 3, 4, 2, 5).flatten(3)
    return downsample.reduction(downsample.norm(joined))


def _attend(block: Any, hidden: torch.Tensor) -> torch.Tensor:
    import torch

    side = hidden.shape[1]
    window = min(block.window_size, side)
    shift = int(block.shift_size) if side > window else 0
    attention = block.attention.self
    parts = _windows(torch.roll(hidden, (-shift, -shift), (1, 2)) if shift else hidden, window)
    split = layers.joined((attention.query, attention.key, attention.value))(parts).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (attention.num_attention_heads, -1)).transpose(2, 3) for part in split)
    context = layers.looked_at(query, key, value, bias=_bias(attention, side, window, shift)).transpose(2, 3).flatten(3)
    made = _joined_windows(block.attention.output(context, None), side, window)
    return torch.roll(made, (shift, shift), (1, 2)) if shift else made


def _windows(hidden: torch.Tensor, window: int) -> torch.Tensor:
    """``[batch, windows, window * window, width]``."""
    parts = hidden.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
    return parts.flatten(3, 4).flatten(1, 2)


def _joined_windows(parts: torch.Tensor, side: int, window: int) -> torch.Tensor:
    """What `_windows` undoes."""
    count = side // window
    apart = parts.unflatten(2, (window, window)).unflatten(1, (count, count)).transpose(2, 3)
    return apart.flatten(3, 4).flatten(1, 2)


def _bias(attention: Any, side: int, window: int, shift: int) -> torch.Tensor:
    """Learnt by how far apart two places are, ``[1 or windows, heads, window * window, window * window]``."""
    places = window * window
    table = attention.relative_position_bias_table[attention.relative_position_index.flatten()]
    bias = table.unflatten(0, (places, places)).permute(2, 0, 1)[None]
    return bias + _apart(side, window, shift)[:, None] if shift else bias


def _apart(side: int, window: int, shift: int) -> torch.Tensor:
    """`ELSEWHERE` between places of a window that were not side by side, ``[windows, window * window, ...]``."""
    import torch

    places = torch.arange(side)
    band = (places >= side - window).long() + (places >= side - shift).long()
    region = _windows((band[:, None] * 3 + band[None])[None, ..., None].float(), window)[0, ..., 0]
    return (region[:, :, None] != region[:, None]).float() * ELSEWHERE
