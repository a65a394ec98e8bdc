import numpy as np
import pytest

from mmedge.core.similarity import Similarity

ROWS = np.eye(2, dtype=np.float32)


def test_logits_are_the_scaled_cosine_and_a_bias():
    assert Similarity(10.0, -1.0).logits(ROWS, ROWS).tolist() == [[9.0, -1.0], [-1.0, 9.0]]


def test_where_one_is_the_right_one_probabilities_add_to_one():
    probabilities = Similarity(2.0).probabilities(np.array([[0.0, np.log(3)]]))
    assert probabilities == pytest.approx(np.array([[0.25, 0.75]]))


def test_where_each_is_by_itself_so_are_probabilities():
    probabilities = Similarity(2.0, activation="sigmoid").probabilities(np.array([[0.0, np.log(3)]]))
    assert probabilities == pytest.approx(np.array([[0.5, 0.75]]))


@pytest.mark.parametrize("logit", [-16.0, -18.0, -25.0, -80.0])
def test_unlikely_ones_keep_their_probability(logit):
    (found,) = Similarity(1.0, activation="sigmoid").probabilities(np.array([logit], np.float32))
    assert found == pytest.approx(np.exp(logit), rel=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_large_logits_do_not_overflow(activation):
    with np.errstate(over="raise", invalid="raise"):
        probabilities = Similarity(1.0, activation=activation).probabilities(np.array([[-1e4, 1e4]]))
    assert probabilities == pytest.approx(np.array([[0.0, 1.0]]))
