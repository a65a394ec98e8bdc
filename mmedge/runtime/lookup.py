"""Several tokens a step where an answer repeats what was read: guessed from the text so far, checked all at once.

Prompt lookup (Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding), a kind of speculative decoding
(Leviathan et al. 2023, https://arxiv.org/abs/2211.17192) without a second model: the tokens that followed the last few
ones earlier are likely to follow again. A step that reads them beside the last token says what the model itself would
have said after each; what differs is forgotten, so the answer is the same, as far as an engine rounds a token among
several as it rounds one alone. Where activations are quantized ONNX Runtime does not: random weights, of which the
likeliest tokens are nearly as likely as others, then give other answers; trained ones gave the same
(benchmarks/results/lookup.json).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from mmedge.core.family import Prompt
from mmedge.runtime.decode import read_answer, read_prompt
from mmedge.runtime.engine import Engine

FEWEST, MOST = 2, 8
"""Tokens that are read ahead: few at first, since a step of 3 takes SmolVLM-256M 1.3 to 1.6 times as long as one of 1,
and one of 9 two to three times; twice as many each time that all were right."""
SIZES = (3, 2)
"""Tokens at the end that must have been seen before in this order; the first that were are followed."""
PATIENCE = 8
"""Steps without a guess after one of which nothing was right: a guess costs time."""


def decode_ahead(engine: Engine, prompt: Prompt, *, limit: int, read: int = 0) -> Iterator[int]:
    """As `mmedge.runtime.decode.decode` with the likeliest tokens, in fewer steps.

    The engine's graph chooses tokens and its cache can be shortened (`Engine.looks_ahead`). ``read`` tokens of the
    prompt are in the cache already.
    """
    text = Text(prompt.tokens.tolist())
    length = len(prompt.tokens)
    token = engine.choose(read_prompt(prompt, read))
    wait, most = 0, FEWEST
    while token not in prompt.stop:
        yield token
        text.add([token])
        if not (room := limit + length - len(text)):
            return
        drafted = [] if wait else text.guess(min(most, room))
        tokens = np.array([token, *drafted], np.int64)
        reading = read_answer(prompt, tokens, len(text) - 1 - length)
        chosen = engine.choose_each(reading).tolist() if drafted else [engine.choose(reading)]
        right = _agreed(drafted, chosen, prompt.stop)
        yield from drafted[:right]
        text.add(drafted[:right])
        if right < len(drafted):
            engine.keep(len(text))
        if right == room:
            return
        if drafted:
            most = min(2 * most, MOST) if right == len(drafted) else FEWEST
        wait = PATIENCE if drafted and not right else max(0, wait - 1)
        token = chosen[right]


def _agreed(drafted: list[int], chosen: list[int], stop: tuple[int, ...]) -> int:
    """How many guesses are what the model says itself, before it ends."""
    pairs = enumerate(zip(drafted, chosen, strict=False))
    return next((place for place, (ours, own) in pairs if ours != own or ours in stop), len(drafted))


class Text:
    """Tokens so far, and what followed each pair and triple of them the last time.

    To search for them at every step would take 2 % of a step behind 1,000 tokens (0.2 ms, SmolVLM-256M on two cores).
    """

    def __init__(self, tokens: Iterable[int]) -> None:
        self._tokens: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}
        """Place of what followed these tokens the last time."""
        self.add(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, tokens: Iterable[int]) -> None:
        known, following = self._tokens, self._next
        for token in tokens:
            for size in SIZES:
                following[tuple(known[-size:])] = len(known)
            known.append(token)

    def guess(self, most: int) -> list[int]:
        """At most so many tokens, those that followed the last time what the text ends with."""
        for size in SIZES:
            if place := self._next.get(tuple(self._tokens[-size:])):
                return self._tokens[place : place + most]
        return []
