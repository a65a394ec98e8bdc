"""Prompt to tokens: one prefill, then one step a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from msgspec import Struct

from mmedge.core.family import Insertion, Prompt
from mmedge.core.ports import Tensors
from mmedge.runtime.pick import Pick


class Reading(Struct, frozen=True):
    """What one step reads."""

    tokens: np.ndarray
    """int64 ``[1, length]``"""
    positions: np.ndarray
    """int64 ``[..., 1, length]``"""
    insertions: tuple[Insertion, ...] = ()
    along: Tensors = {}
    is_prompt: bool = False


Step: TypeAlias = Callable[[Reading], int]
"""Gives the token that follows what it reads."""


def picking(logits: Callable[[Reading], np.ndarray], pick: Pick) -> Step:
    """The step that picks from the last of ``logits(reading)``, float32 ``[vocabulary]``."""
    return lambda reading: pick(logits(reading))


def read_prompt(prompt: Prompt) -> Reading:
    """All of a prompt, to be read at once."""
    return Reading(prompt.tokens[None], _positions(prompt), prompt.insertions, prompt.along, is_prompt=True)


def read_answer(prompt: Prompt, tokens: np.ndarray, place: int) -> Reading:
    """Tokens int64 ``[length]`` of an answer to it, the first of which is token number ``place`` of the answer."""
    before = _positions(prompt)
    first = int(before.max()) + 1 + place
    positions = np.broadcast_to(np.arange(first, first + len(tokens)), (*before.shape[:-1], len(tokens)))
    return Reading(tokens[None], positions.copy())


def decode(step: Step, prompt: Prompt, *, stop: tuple[int, ...] | None = None, limit: int) -> Iterator[int]:
    """Yield tokens until one of ``stop``, those of the prompt unless given, or ``limit`` of them."""
    ends = prompt.stop if stop is None else stop
    reading = read_prompt(prompt)
    for place in range(limit):
        token = step(reading)
        if token in ends:
            return
        yield token
        reading = read_answer(prompt, np.array([token], np.int64), place)


def _positions(prompt: Prompt) -> np.ndarray:
    if prompt.positions is None:
        return np.arange(len(prompt.tokens))[None]
    return prompt.positions
