"""Several answers at once: a step of eight costs little more than a step of one, as weights are read once.

Each prompt is read by itself into a row of the cache; then all answers go on together, and those that end make room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmedge.core.family import Prompt
from mmedge.core.ports import Tensors
from mmedge.runtime.decode import read_answer, read_prompt
from mmedge.runtime.engine import Engine


@dataclass
class _Going:
    """An answer that has not ended."""

    number: int
    prompt: Prompt
    limit: int
    token: int
    """The last one, which the cache does not hold yet."""
    tokens: list[int] = field(default_factory=list)

    def ends(self) -> bool:
        """Take the token in; whether it was the last."""
        if self.token in self.prompt.stop:
            return True
        self.tokens.append(self.token)
        return len(self.tokens) >= self.limit

    def position(self) -> np.ndarray:
        """Of the token, int64 ``[..., 1, 1]``."""
        return read_answer(self.prompt, np.array([self.token]), len(self.tokens) - 1).positions


def decode_together(
    engine: Engine, prompts: Sequence[Prompt], values: Sequence[Tensors], limits: Sequence[int]
) -> list[list[int]]:
    """The likeliest tokens of each answer, as `mmedge.runtime.decode.decode` gives them one by one. ``values`` are what
    the engine encoded of each prompt."""
    found: list[list[int]] = [[] for _ in prompts]
    going: list[_Going] = []
    for number, (prompt, seen, limit) in enumerate(zip(prompts, values, limits, strict=True)):
        engine.begin_row(len(going), seen)
        one = _Going(number, prompt, limit, engine.choose(read_prompt(prompt)))
        found[number] = one.tokens
        if not one.ends():
            going.append(one)
    while going:
        engine.select(0, len(going))
        tokens = np.array([one.token for one in going])
        positions = np.concatenate([one.position() for one in going], axis=-1)
        chosen = engine.choose_together(tokens, positions).tolist()
        for one, token in zip(going, chosen, strict=True):
            one.token = token
        for row in reversed([row for row, one in enumerate(going) if one.ends()]):
            engine.move(len(going) - 1, row)
            going[row] = going[-1]
            going.pop()
    return found
