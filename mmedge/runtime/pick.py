"""Logits to a token: the most likely one, or a draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from mmedge.errors import UsageError

Pick: TypeAlias = Callable[[np.ndarray], int]
"""float32 ``[vocabulary]`` to a token id."""


def greedy(logits: np.ndarray) -> int:
    """The most likely token; the first of equals, as torch and every engine's ArgMax choose."""
    return int(logits.argmax())


def sampler(temperature: float, top_p: float = 1.0, seed: int | None = None) -> Pick:
    """Draw from the likeliest tokens whose probabilities sum to ``top_p`` (Holtzman et al. 2020, nucleus sampling).

    Temperature 0 is `greedy`. The same seed gives the same answers.
    """
    if not 0 <= temperature <= 100:
        raise UsageError(f"temperature is {temperature}, it must be between 0 and 100")
    if not 0 < top_p <= 1:
        raise UsageError(f"top-p is {top_p}, it must be above 0 and at most 1")
    if temperature == 0:
        return greedy
    generator = np.random.default_rng(seed)

    def draw(logits: np.ndarray) -> int:
        scaled = logits.astype(np.float64) / temperature
        weights = np.exp(scaled - scaled.max())
        order = np.argsort(-weights, kind="stable")
        probabilities = weights[order] / weights.sum()
        # The token that crosses the threshold still belongs to the nucleus.
        nucleus = probabilities[: int(np.searchsorted(probabilities.cumsum(), top_p)) + 1]
        return int(order[generator.choice(len(nucleus), p=nucleus / nucleus.sum())])

    return draw
