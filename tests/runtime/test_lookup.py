"""Reading ahead: the same tokens as one by one, in fewer steps, whatever is guessed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmedge.core.family import Prompt
from mmedge.runtime.decode import decode, read_prompt
from mmedge.runtime.lookup import MOST, SIZES, Text, decode_ahead

STOP = 99


class Rule:
    """An engine whose next token follows from all that it holds, as a model's does."""

    def __init__(self, rule):
        self.rule, self.held, self.steps = rule, [], 0

    def choose(self, reading):
        return int(self.choose_each(reading)[-1])

    def choose_each(self, reading):
        self.steps += 1
        assert reading.positions[0].tolist() == list(range(len(self.held), len(self.held) + reading.tokens.shape[1]))
        found = []
        for token in reading.tokens[0].tolist():
            self.held.append(token)
            found.append(self.rule(self.held))
        return np.array(found)

    def keep(self, length):
        del self.held[length:]
        return True


def counting(held):
    return (held[-1] + 1) % 5


def ending(held):
    return STOP if len(held) == 14 else (held[-1] + 1) % 5


def unlike(held):
    return (sum(held) * 7 + len(held)) % 31


RULES = {"a text that repeats": counting, "one that ends": ending, "one that never repeats": unlike}


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 20])
def test_the_tokens_are_those_of_single_steps(rule, limit):
    prompt = Prompt({}, np.array([0, 1, 2, 3, 4, 0, 1]), stop=(STOP,), capacity=64)
    one, several = Rule(rule), Rule(rule)
    assert list(decode_ahead(several, prompt, limit=limit)) == list(decode(one.choose, prompt, limit=limit))


def test_a_text_that_repeats_takes_fewer_steps():
    engine = Rule(counting)
    prompt = Prompt({}, np.array([0, 1, 2, 3, 4, 0, 1]), stop=(), capacity=64)
    assert len(list(decode_ahead(engine, prompt, limit=20))) == 20
    assert engine.steps < 10


def test_what_the_cache_holds_already_is_not_read_again():
    prompt = Prompt({}, np.array([5, 6, 7]), stop=(), capacity=9)
    assert read_prompt(prompt, 2).tokens.tolist() == [[7]]
    assert read_prompt(prompt, 2).positions.tolist() == [[2]]


def searched(known, most):
    """The plain search that `Text` saves: backwards for what the text ends with."""
    for size in SIZES:
        for begin in range(len(known) - size - 1, -1, -1):
            if known[begin : begin + size] == known[-size:]:
                return known[begin + size : begin + size + most]
    return []


def test_a_guess_is_what_followed_the_last_time():
    assert Text([1, 2, 8, 1, 2, 9, 1, 2]).guess(2) == [9, 1]
    assert Text([1, 2, 3]).guess(4) == []
    assert Text([7, 7, 7, 7]).guess(0) == []
    assert Text([]).guess(4) == []
    assert len(Text([1, 2] * 20).guess(MOST)) <= MOST


@given(st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=8), st.integers(1, MOST))
def test_a_guess_is_the_same_as_by_a_search_through_the_text(parts, most):
    text, known = Text([]), []
    for part in parts:
        text.add(part)
        known += part
        assert len(text) == len(known)
        assert text.guess(most) == searched(known, most)
