"""Several tokens a step where an answer repeats what was read: guessed from the text so far, checked all at once.

Prompt lookup (Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding), a kind of speculative decoding
(Leviathan et al. 2023, https://arxiv.org/abs/2211.17192) without a second model: the tokens that followed the last few
ones earlier are likely to follow again. A step that reads them beside the last token says what the model itself would
have said after each; what differs is forgotten, so the answer is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmedge.core.family import Prompt
from mmedge.runtime.decode import read_answer, read_prompt
from mmedge.runtime.engine import Engine

GUESSES = 6
"""Tokens that are read ahead at most."""
LONGEST, SHORTEST = 3, 2
"""Tokens at the end that must have been seen before in this order."""
PATIENCE = 8
"""Steps without a guess after one of which nothing was right: a guess costs time."""


def decode_ahead(engine: Engine, prompt: Prompt, *, limit: int, read: int = 0) -> Iterator[int]:
    """As `mmedge.runtime.decode.decode` with the likeliest tokens, in fewer steps.

    The engine's graph chooses tokens and its cache can be shortened (`Engine.looks_ahead`). ``read`` tokens of the
    prompt are in the cache already.
    """
    known = prompt.tokens.tolist()
    length = len(known)
    token = engine.choose(read_prompt(prompt, read))
    wait = 0
    while token not in prompt.stop:
        yield token
        known.append(token)
        if not (room := limit + length - len(known)):
            return
        drafted = [] if wait else guess(known, min(GUESSES, room))
        tokens = np.array([token, *drafted], np.int64)
        chosen = engine.choose_each(read_answer(prompt, tokens, len(known) - 1 - length)).tolist()
        right = _agreed(drafted, chosen, prompt.stop)
        yield from drafted[:right]
        known += drafted[:right]
        engine.keep(len(known))
        if right == room:
            return
        wait = PATIENCE if drafted and not right else max(0, wait - 1)
        token = chosen[right]


def _agreed(drafted: list[int], chosen: list[int], stop: tuple[int, ...]) -> int:
    """How many guesses are what the model says itself, before it ends."""
    pairs = enumerate(zip(drafted, chosen, strict=False))
    return next((place for place, (ours, own) in pairs if ours != own or ours in stop), len(drafted))


def guess(known: list[int], most: int) -> list[int]:
    """Tokens that followed, the last time, what ``known`` ends with."""
    if most < 1:
        return []
    for size in range(LONGEST, SHORTEST - 1, -1):
        end = known[-size:]
        for begin in range(len(known) - size - 1, -1, -1):
            if known[begin : begin + size] == end:
                return known[begin + size : begin + size + most]
    return []
