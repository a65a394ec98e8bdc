"""What need not be computed again: pictures that were seen before, and the beginning of a prompt that is still read."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TypeAlias

import numpy as np

from mmedge.core.family import Prompt
from mmedge.core.ports import Tensors

MOST_BYTES = 64 << 20
"""Of features that are kept: those of 400 tiles of a small model, or of 20 pictures of a large one."""

Mark: TypeAlias = "int | bytes"
"""What a decoder read at one place: a token, or the digest of a row in its place."""


class Features:
    """Outputs of towers by what they looked at; the longest unused go first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[bytes, Tensors] = OrderedDict()
        self._bytes = 0

    def of(self, look: Tensors, encode: Callable[[Tensors], Tensors]) -> Tensors:
        """What ``encode`` makes of a look, or made of the same one before."""
        key = _digest(look)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = {name: tensor for name, tensor in encode(look).items() if name not in look}
        self._kept[key] = made
        self._bytes += _size(made)
        while self._bytes > self._most_bytes:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return made


def marks(prompt: Prompt, seen: Tensors) -> list[Mark]:
    """What a decoder reads at each place of the prompt; the same marks mean the same keys and values."""
    found: list[Mark] = [int(token) for token in prompt.tokens]
    for insertion in prompt.insertions:
        rows = seen[insertion.value].reshape(len(insertion.places), -1)
        for place, row in zip(insertion.places.tolist(), rows, strict=True):
            found[place] = hashlib.blake2b(row.tobytes()).digest()
    return found


def alike(one: Sequence[Mark], other: Sequence[Mark]) -> int:
    """How many places they begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _digest(look: Tensors) -> bytes:
    found = hashlib.blake2b()
    for name, tensor in sorted(look.items()):
        found.update(f"{name} {tensor.dtype} {tensor.shape};".encode())
        found.update(np.ascontiguousarray(tensor).data)
    return found.digest()


def _size(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
