from collections import Counter
from itertools import islice, pairwise

import pytest

from mmedge.profiling.order import Order, block_length, orders_of

COUNTS = range(1, 9)


def rounds_of(count: int, rounds: int, seed: int) -> tuple[Order, ...]:
    return tuple(islice(orders_of(count, seed), rounds))


def blocks(count: int, number: int = 3):
    length = block_length(count)
    rounds = rounds_of(count, number * length, seed=7)
    return [rounds[begin : begin + length] for begin in range(0, len(rounds), length)]


@pytest.mark.parametrize("count", COUNTS)
def test_everyone_answers_once_a_round(count):
    assert all(sorted(order) == list(range(count)) for block in blocks(count) for order in block)


@pytest.mark.parametrize("count", COUNTS)
def test_in_a_block_everyone_is_as_often_at_every_place(count):
    for block in blocks(count):
        places = Counter((place, number) for order in block for place, number in enumerate(order))
        assert set(places.values()) == {block_length(count) // count}


@pytest.mark.parametrize("count", COUNTS)
def test_in_a_block_everyone_comes_as_often_directly_after_everyone_else(count):
    for block in blocks(count):
        pairs = Counter(pair for order in block for pair in pairwise(order))
        assert len(pairs) == count * (count - 1) and len(set(pairs.values())) <= 1


def test_two_take_turns_in_coming_first():
    assert all({*block} == {(0, 1), (1, 0)} for block in blocks(2))


def test_the_same_seed_gives_the_same_order_and_another_seed_another():
    assert rounds_of(5, 50, seed=1) == rounds_of(5, 50, seed=1) != rounds_of(5, 50, seed=2)


def test_blocks_are_shuffled_so_that_a_picture_does_not_always_meet_the_same_order():
    assert len({tuple(block) for block in blocks(4, number=10)}) > 5
