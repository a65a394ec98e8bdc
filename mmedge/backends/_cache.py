"""A cache of fixed length: what steers each step, and two sets of buffers for engines that use the host's memory."""

from __future__ import annotations

import numpy as np

from mmedge.core.ports import CacheShape, Tensors
from mmedge.errors import InputError

UNSEEN = -6_000.0
"""Added to the scores of slots that a token does not look at: far below any score, float16 can hold it even if a graph
adds it twice, and it is small enough not to be taken for a value on the way to an overflow."""


class FixedCache:
    """Counts the slots in use and makes the inputs that `CacheShape.steering` names."""

    def __init__(self, shape: CacheShape) -> None:
        self.capacity = shape.capacity
        self.used = 0

    def reset(self) -> None:
        self.used = 0

    def steer(self, length: int) -> Tensors:
        """Inputs of a step that reads ``length`` tokens, each of which looks at those before it and at itself.

        Raises:
            InputError: there is no room for them.
        """
        if self.used + length > self.capacity:
            raise InputError(
                f"the cache has {self.capacity} slots, {self.used} are in use: no room for {length} more tokens",
                hint="shorten the text, or export with a larger cache",
            )
        slots, rows = np.arange(self.capacity), np.arange(self.used, self.used + length)
        bias = np.where(slots <= rows[:, None], 0.0, UNSEEN).astype(np.float32)
        return {"cache_position": np.array([self.used], np.int64), "attention_bias": bias[None, None]}

    def advance(self, length: int) -> None:
        """The step was run."""
        self.used += length


class HostCache(FixedCache):
    """With two sets of buffers in the host's memory: a step reads one and writes the other."""

    def __init__(self, shape: CacheShape) -> None:
        super().__init__(shape)
        size = (1, shape.heads, shape.capacity, shape.head_dim)
        self._sets: tuple[list[np.ndarray], ...] = tuple(
            [np.zeros(size, shape.dtype) for _ in shape.past()] for _ in range(2)
        )
        self._pairs = tuple(
            (past.name, present.name) for past, present in zip(shape.past(), shape.present(), strict=True)
        )
        self._turn = 0

    def reset(self) -> None:
        super().reset()
        for buffer in (*self._sets[0], *self._sets[1]):
            buffer.fill(0)  # slots that were never written count with weight 0, and a NaN times 0 is a NaN

    def past(self) -> Tensors:
        """What the next step reads, by input."""
        return {past: buffer for (past, _), buffer in zip(self._pairs, self._sets[self._turn], strict=True)}

    def present(self) -> Tensors:
        """Where the next step writes, by output."""
        return {present: buffer for (_, present), buffer in zip(self._pairs, self._sets[1 - self._turn], strict=True)}

    def advance(self, length: int) -> None:
        super().advance(length)
        self._turn = 1 - self._turn
