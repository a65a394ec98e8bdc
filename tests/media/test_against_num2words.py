"""Numbers in words, against the library that the reference processor asks."""

from __future__ import annotations

import pytest
from num2words import num2words

from mmedge.media.words import in_words


@pytest.mark.parametrize("numbers", [range(1100), (*range(1990, 2110), 9999, 10_000), range(99_000, 999_999, 7919)])
def test_numbers_are_written_as_the_reference_does(numbers):
    assert [in_words(number) for number in numbers] == [num2words(number) for number in numbers]
