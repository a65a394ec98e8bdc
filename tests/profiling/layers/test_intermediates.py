"""Which tensors of two graphs are compared, and how far they are apart."""

import numpy as np
import pytest

from mmedge.core.onnx_graph import Node, OnnxGraph
from mmedge.profiling.layers import intermediates
from mmedge.profiling.layers.intermediates import LARGEST_DB, chunks, comparable, decibels, following


def graph(*nodes: tuple[str, str, str, str]) -> OnnxGraph:
    """Of name, operator, inputs, output."""
    made = tuple(Node(name, op, "", tuple(inputs.split()), (output,), {}) for name, op, inputs, output in nodes)
    return OnnxGraph(made, {}, ("x",), made[-1].outputs)


FLOAT = graph(
    ("fc/MatMul", "MatMul", "x w", "val"), ("fc/Add", "Add", "val b", "linear"), ("r", "Reshape", "linear s", "z")
)
SMALL = graph(
    ("rows", "Reshape", "x s", "x_rows"),
    ("fc/MatMul", "Gemm", "x_rows w b", "fc_product"),
    ("fc/Add", "Reshape", "fc_product s", "linear"),
    ("r", "Reshape", "linear s", "z"),
)


def test_tensors_are_compared_that_nodes_of_the_same_name_make_under_the_same_name():
    assert comparable(FLOAT, SMALL) == {"linear": "fc/Add"}


def test_what_a_session_keeps_for_itself_is_not_asked_for():
    assert comparable(FLOAT, SMALL, cached={"linear"}) == {}


def test_a_product_with_its_bias_has_the_noise_of_the_sum():
    found = following(SMALL, "encoder", {("encoder", "fc/Add"): 40.0})
    assert found["encoder", "fc/MatMul"] == 40.0
    assert ("encoder", "r") not in found


def test_tensors_are_dumped_a_few_at_a_time(monkeypatch):
    monkeypatch.setattr(intermediates, "MOST_BYTES", 10)
    sizes = {"a": 6, "b": 4, "c": 11, "d": 1}
    assert list(chunks(dict.fromkeys("abcd", "n"), sizes)) == [("a", "b"), ("c",), ("d",)]


@pytest.mark.parametrize(("noise", "db"), [(1.0, 0.0), (0.1, 20.0), (0.01, 40.0)])
def test_a_tenth_of_the_amplitude_is_20_decibels(noise, db):
    signal = np.ones(100)
    assert decibels(float(signal @ signal), 100 * noise**2) == pytest.approx(db)


def test_equal_tensors_have_a_bound_instead_of_infinity():
    assert decibels(1.0, 0.0) == LARGEST_DB
