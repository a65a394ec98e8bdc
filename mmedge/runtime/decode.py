"""Prompt to tokens: one prefill, then one step a token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

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
    asked: np.ndarray | None = None
    """int64 ``[asked]``: places whose next token is wanted; the last unless given."""


Step: TypeAlias = Callable[[Reading], int]
"""Gives the token that follows what it reads."""


def picking(logits: Callable[[Reading], np.ndarray], pick: Pick) -> Step:
    """The step that picks from the last of ``logits(reading)``, float32 ``[vocabulary]``."""
    return lambda reading: pick(logits(reading))


def read_prompt(prompt: Prompt, read: int = 0) -> Reading:
    """All of a prompt behind the first ``read`` tokens, to be read at once."""
    along = {name: array[:, read:] for name, array in prompt.along.items()}
    insertions = tuple(_behind(insertion, read) for insertion in prompt.insertions)
    return Reading(prompt.tokens[None, read:], positions_of(prompt)[..., read:], insertions, along, is_prompt=True)


def read_answer(prompt: Prompt, tokens: np.ndarray, place: int) -> Reading:
    """Tokens int64 ``[length]`` of an answer to it, the first of which is token number ``place`` of the answer."""
    before = prompt.positions
    first = place + (len(prompt.tokens) if before is None else int(before.max()) + 1)
    positions = np.empty(((1,) if before is None else before.shape[:-1]) + tokens.shape, np.int64)
    positions[...] = np.arange(first, first + len(tokens))
    return Reading(tokens[None], positions)


def decode(
    step: Step, prompt: Prompt, *, stop: tuple[int, ...] | None = None, limit: int, read: int = 0
) -> Iterator[int]:
    """Yield tokens until one of ``stop``, those of the prompt unless given, or ``limit`` of them. ``read`` tokens of
    the prompt are in the cache already."""
    ends = prompt.stop if stop is None else stop
    reading = read_prompt(prompt, read)
    for place in range(limit):
        token = step(reading)
        if token in ends:
            return
        yield token
        reading = read_answer(prompt, np.array([token], np.int64), place)


def _behind(insertion: Insertion, read: int) -> Insertion:
    left = insertion.places >= read
    return replace(insertion, places=insertion.places[left] - read, first=int((~left).sum()))


def positions_of(prompt: Prompt) -> np.ndarray:
    """Of its tokens, int64 ``[..., 1, length]``."""
    if prompt.positions is None:
        return np.arange(len(prompt.tokens))[None]
    return prompt.positions
