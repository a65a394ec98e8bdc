"""What steers a cache of fixed length: where a step writes, and what its tokens may look at."""

from __future__ import annotations

import numpy as np

from mmedge.core.ports import CacheShape, Tensors
from mmedge.errors import InputError

UNSEEN = -10_000.0
"""Added to the scores of slots that a token does not look at: far below any score, and float16 can hold it."""


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
