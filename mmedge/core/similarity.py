"""How embeddings of two modalities are compared."""

from __future__ import annotations

from typing import Literal

import numpy as np
from msgspec import Struct

SUFFIX = "_embeds"
"""Of outputs that are embeddings, after the modality."""


class Similarity(Struct, frozen=True, forbid_unknown_fields=True):
    """What a dual encoder was trained to say of two embeddings of length 1: ``scale * cosine + bias``."""

    scale: float
    bias: float = 0.0
    activation: Literal["softmax", "sigmoid"] = "softmax"
    """``softmax`` where one of several is the right one (Radford et al. 2021, https://arxiv.org/abs/2103.00020),
    ``sigmoid`` where each is by itself (Zhai et al. 2023, https://arxiv.org/abs/2303.15343)."""

    def logits(self, embeddings: np.ndarray, others: np.ndarray) -> np.ndarray:
        """float32 ``[n, m]`` of embeddings ``[n, width]`` and ``[m, width]``."""
        scores: np.ndarray = embeddings @ others.T * np.float32(self.scale) + np.float32(self.bias)
        return scores

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Of each of ``[n, m]``; along the last axis they add to 1 where one is the right one."""
        if self.activation == "sigmoid":
            return np.asarray(np.exp(-np.logaddexp(0, -logits)), logits.dtype)  # exact where it is nearly 0, too
        powers = np.exp(logits - logits.max(-1, keepdims=True))
        return np.asarray(powers / powers.sum(-1, keepdims=True))
