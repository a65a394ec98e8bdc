"""What need not be computed again: pictures that were seen before, and the beginning of a prompt that is still read."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TypeAlias

import numpy as np

from mmedge.core.family import Insertion, Prompt
from mmedge.core.ports import Tensors
from mmedge.errors import BundleError, InputError
from mmedge.runtime.decode import positions_of

MOST_BYTES = 64 << 20
"""Of features that are kept: those of 400 tiles of a small model, or of 20 pictures of a large one."""

Mark: TypeAlias = "tuple[int | bytes, bytes]"
"""What a decoder read at one place: a token, or the digest of a row in its place; and its position."""


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
    """What a decoder reads at each place of the prompt; the same marks mean the same keys and values.

    Raises:
        BundleError, InputError: as `rows_of`.
    """
    read: list[int | bytes] = prompt.tokens.tolist()
    for insertion in prompt.insertions:
        for place, row in zip(insertion.places.tolist(), rows_of(insertion, seen), strict=True):
            read[place] = hashlib.blake2b(row.tobytes()).digest()
    return placed(read, positions_of(prompt))


def placed(read: Sequence[int | bytes], positions: np.ndarray) -> list[Mark]:
    """Marks of what is read at positions int64 ``[..., 1, length]``."""
    return [(each, positions[..., place].tobytes()) for place, each in enumerate(read)]


def rows_of(insertion: Insertion, seen: Tensors) -> np.ndarray:
    """What is put into a prompt, ``[places, width]``.

    Raises:
        BundleError: nothing makes it.
        InputError: there are not as many rows as places.
    """
    if insertion.value not in seen:
        raise BundleError(f"no graph of the bundle makes `{insertion.value}`")
    made = seen[insertion.value]
    rows = made.reshape(-1, made.shape[-1])[insertion.first :]
    if len(rows) != len(insertion.places):
        raise InputError(
            f"the prompt has places for {len(insertion.places)} rows of `{insertion.value}`, the pictures give "
            f"{len(rows)}",
            hint="do config.json and the processor's files of the checkpoint belong together?",
        )
    return rows


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
