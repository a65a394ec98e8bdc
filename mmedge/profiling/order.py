"""Who answers when: every candidate once a round, in an order that favours none."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain
from typing import TypeAlias

Order: TypeAlias = tuple[int, ...]
"""Candidates of one round by number, in the order they answer."""


def orders_of(count: int, seed: int) -> Iterator[Order]:
    """Orders of rounds of ``count`` candidates without end; balanced over whole blocks (`block_length`)."""
    return chain.from_iterable(_blocks(count, random.Random(seed)))


def block_length(count: int) -> int:
    """Rounds after which everyone was as often at every place, and as often directly before and after everyone else."""
    return len(_square(count))


def _blocks(count: int, chance: random.Random) -> Iterator[list[Order]]:
    """Names and rounds are shuffled anew in every block, so that no picture always meets the same order."""
    while True:
        names, rows = list(range(count)), _square(count)
        chance.shuffle(names)
        chance.shuffle(rows)
        yield [tuple(names[place] for place in row) for row in rows]


def _square(count: int) -> list[Order]:
    """A Latin square balanced for carry-over (E. J. Williams 1949): AB, BA for two. Odd counts need its mirror too."""
    zigzag = [place // 2 if place % 2 else -(place // 2) for place in range(1, count + 1)]
    rows = [tuple((place + shift) % count for place in zigzag) for shift in range(count)]
    return rows + [row[::-1] for row in rows] if count % 2 and count > 1 else rows
