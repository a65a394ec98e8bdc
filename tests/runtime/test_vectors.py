import numpy as np
import pytest

from mmedge.errors import InputError
from mmedge.runtime.vectors import decoded, encoded, nearest, recall

WIDTH = 16


def rows(count: int) -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(count, WIDTH)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def test_the_nearest_come_first_and_alike_ones_in_their_order():
    vectors = np.eye(4, dtype=np.float32)[[2, 1, 1, 0]]
    found = nearest(vectors, np.array([0.6, 0.8, 0, 0], np.float32), 3)
    assert [place for place, _ in found] == [1, 2, 3]
    assert [cosine for _, cosine in found] == pytest.approx([0.8, 0.8, 0.6])


def test_more_than_there_are_may_be_asked_for():
    assert len(nearest(rows(3), rows(1)[0], 10)) == 3
    assert nearest(rows(0), rows(1)[0], 10) == []


def test_recall_is_the_share_of_the_nearest_that_is_still_among_them():
    exact = np.eye(4, dtype=np.float32)
    swapped = exact[[1, 0, 2, 3]]
    assert recall(exact, exact, exact, 1) == 1.0
    assert recall(exact, swapped, exact, 1) == 0.5
    with pytest.raises(InputError):
        recall(exact[:0], exact[:0], exact, 1)


def test_int8_keeps_most_of_the_nearest():
    exact = rows(500)
    kept = decoded(encoded(exact, "int8"), "int8", WIDTH)
    assert recall(exact, kept, exact[:100], 10) > 0.9


def test_a_vector_of_nothing_stays_one():
    assert not decoded(encoded(np.zeros((1, WIDTH), np.float32), "int8"), "int8", WIDTH).any()
