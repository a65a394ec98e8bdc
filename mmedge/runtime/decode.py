"""Prompt to tokens: one prefill, then one step a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from mmedge.runtime.pick import Pick

Step: TypeAlias = Callable[[np.ndarray, np.ndarray], int]
"""``step(tokens, positions)``, both int64 ``[1, length]``, gives the token that follows them."""


def picking(logits: Callable[[np.ndarray, np.ndarray], np.ndarray], pick: Pick) -> Step:
    """The step that picks from ``logits(tokens, positions)``, float32 ``[vocabulary]``."""
    return lambda tokens, positions: pick(logits(tokens, positions))


def decode(step: Step, prompt: np.ndarray, *, stop: tuple[int, ...], limit: int) -> Iterator[int]:
    """Yield tokens until one of ``stop``, or ``limit`` of them. ``prompt`` is int64 ``[length]``."""
    tokens, position = prompt, 0
    for _ in range(limit):
        positions = np.arange(position, position + len(tokens))
        token = step(tokens[None], positions[None])
        if token in stop:
            return
        yield token
        position += len(tokens)
        tokens = np.array([token], np.int64)
