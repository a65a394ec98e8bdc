"""A decoder's keys and values while it is traced or run by torch (`core.family.Cache`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch

from mmedge.backends._cache import UNSEEN
from mmedge.core.family import Heads
from mmedge.core.ports import CacheShape

Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Key and value of a layer, ``[1, heads, length, head_dim]``."""


class GrowingCache:
    """New keys and values are put behind the old ones."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = list(pairs)
        self._past = pairs[0][0].shape[2]

    def fused(self, *_: Any) -> None:
        """Attention is spelled out."""

    def update(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> Pair:
        past_key, past_value = self.pairs[layer]
        self.pairs[layer] = torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)
        return self.pairs[layer]

    def bias(
        self, length: int, *, blocks: torch.Tensor | None = None, window: int = 0, strict: bool = False
    ) -> torch.Tensor:
        slots, own = torch.arange(self._past + length)[None], (torch.arange(length) + self._past)[:, None]
        hidden = slots > own
        if window and not strict:
            hidden = hidden | (slots <= own - window)
        if blocks is not None:
            before = torch.zeros(length, self._past, dtype=torch.bool)
            hidden = hidden & ~torch.cat([before, _same(blocks[0][:, None], blocks)], dim=1)
        if window and strict:
            hidden = hidden | (slots <= own - window)
        # Not a boolean mask: OpenVINO runs that several times slower in a long prefill.
        return torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)[None, None]


class SharedCache:
    """Written in place by ONNX Runtime's GroupQueryAttention, which can only be causal."""

    def __init__(self, pairs: Sequence[Pair], last: torch.Tensor, total: torch.Tensor) -> None:
        self.pairs = list(pairs)
        self._steering = last, total

    def update(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> Pair:
        raise NotImplementedError("this cache is written by `fused`")

    def bias(self, *_: Any, **__: Any) -> None:
        return None

    def fused(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        heads: Heads,
        tables: Pair | None = None,
    ) -> torch.Tensor:
        past = self.pairs[layer]
        attributes = {
            "num_heads": heads.queries,
            "kv_num_heads": heads.keys,
            "scale": heads.scale,
            "softcap": heads.cap,
            "local_window_size": heads.window or -1,
            "do_rotary": int(tables is not None),
        }
        context, *self.pairs[layer] = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            (query, key, value, *past, *self._steering, *(tables or ())),
            attributes,
            dtypes=(torch.float32,) * 3,
            shapes=((*query.shape[:2], heads.queries * heads.dim), past[0].shape, past[1].shape),
            version=1,
        )
        return context


class FixedCache:
    """New keys and values are written into slots, and what may be seen is an input.

    Written with Gather and Where, which every TensorRT has in float16 and which touch each slot once: of ``capacity``
    slots one gathers the new row that belongs there, if one does, and keeps the old one otherwise.
    """

    def __init__(self, pairs: Sequence[Pair], cache_position: torch.Tensor, attention_bias: torch.Tensor) -> None:
        self.pairs = list(pairs)
        self._attention_bias = attention_bias
        self._slots = torch.arange(pairs[0][0].shape[2])
        self._rows = self._slots - cache_position

    def fused(self, *_: Any) -> None:
        """Attention is spelled out."""

    def update(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> Pair:
        past_key, past_value = self.pairs[layer]
        self.pairs[layer] = self._write(past_key, key), self._write(past_value, value)
        return self.pairs[layer]

    def bias(
        self, length: int, *, blocks: torch.Tensor | None = None, window: int = 0, strict: bool = False
    ) -> torch.Tensor:
        bias, far = self._attention_bias, None
        if window < len(self._slots) and window:
            far = self._before(window)
        if far is not None and not strict:
            bias = bias.masked_fill(far, UNSEEN)
        if blocks is not None:
            fresh = self._fresh(length)
            theirs = torch.where(fresh, blocks[0].index_select(0, torch.where(fresh, self._rows, 0)), 0)
            bias = bias.masked_fill(_same(blocks[0][:, None], theirs[None]), 0.0)
        if far is not None and strict:
            bias = bias.masked_fill(far, UNSEEN)
        return bias

    def _before(self, window: int) -> torch.Tensor:
        """Slots before a token's window: those from which the slot ``window`` later is seen.

        Not by counting the tokens of the step, after which no engine knows the shape of anything.
        """
        later = torch.nn.functional.pad(self._attention_bias[..., window:], (0, window), value=UNSEEN)
        return later > UNSEEN / 2

    def _fresh(self, length: int) -> torch.Tensor:
        """Slots that this step writes."""
        return (self._rows >= 0) & (self._rows < length)

    def _write(self, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        fresh = self._fresh(new.shape[2])
        rows = new.index_select(2, torch.where(fresh, self._rows, 0))
        return torch.where(fresh[None, None, :, None], rows, old)


def _same(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Whether two tokens are of the same block."""
    return (ours == theirs) & (ours > 0)


def make_cache(
    shape: CacheShape, past: Sequence[torch.Tensor], steering: Sequence[torch.Tensor]
) -> GrowingCache | FixedCache | SharedCache:
    """The kind that ``shape`` describes; ``past`` and ``steering`` in the order of its ports."""
    pairs = list(zip(past[::2], past[1::2], strict=True))
    if shape.shared:
        return SharedCache(pairs, *steering)
    return FixedCache(pairs, *steering) if shape.capacity else GrowingCache(pairs)


def empty_cache(shape: CacheShape) -> GrowingCache:
    """What torch begins an answer with."""
    return GrowingCache([(torch.zeros(1, shape.heads, 0, shape.head_dim),) * 2 for _ in range(shape.layers)])
