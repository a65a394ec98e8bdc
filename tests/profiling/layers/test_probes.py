"""Graphs that are written without the onnx package are what it would write, and compute what they should."""

import numpy as np
import onnx
import pytest

from mmedge.backends.onnxruntime import BACKEND
from mmedge.core.onnx_graph import Tensor, read_graph
from mmedge.profiling.layers.costs import run_costs
from mmedge.profiling.layers.peaks import bandwidths, copy_rate, product_rate
from mmedge.profiling.layers.probes import PRECISIONS, copy, product

SIZE = 64


@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_are_sound(precision, tmp_path):
    graph, path = product(tmp_path, precision, SIZE)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert graph.precision == precision


@pytest.mark.parametrize(("precision", "nbits"), [*((name, False) for name in PRECISIONS), ("int8-weights", True)])
def test_products_are_counted_as_what_they_are(precision, nbits, tmp_path):
    graph, path = product(tmp_path, precision, SIZE, nbits=nbits, rows=2 * SIZE)
    session = BACKEND.open_plain(graph, path)
    session.run({"x": np.ones((2 * SIZE, SIZE), graph.inputs[0].dtype)})
    (made,) = session.shapes()
    session.close()
    run = run_costs(read_graph(path.read_bytes()), made, {"x": Tensor(graph.inputs[0].dtype, (2 * SIZE, SIZE))})
    flops = run.quantized_flops if precision.startswith("int") else run.rest_flops
    assert flops == pytest.approx(2 * 2 * SIZE**3, rel=0.01)
    bits = {"float32": 32, "float16": 16, "int4-weights": 4}.get(precision, 8)
    assert run.weights == pytest.approx(SIZE * SIZE * bits / 8, rel=0.3), "with scales"
    assert not run.unknown


def test_a_float_product_is_right(tmp_path):
    graph, path = product(tmp_path, "float32", SIZE)
    session = BACKEND.open(graph, path)
    weight = onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    np.testing.assert_allclose(session.run({"x": np.eye(SIZE, dtype=np.float32)})["y"], weight, rtol=1e-6)
    session.close()


def test_a_copy_reads_and_writes_its_buffers(tmp_path):
    graph, path = copy(tmp_path, 1 << 14)
    onnx.checker.check_model(onnx.load(path))
    session = BACKEND.open_plain(graph, path)
    session.run({"input_ids": np.zeros((1, 1), np.int64)})
    (made,) = session.shapes()
    session.close()
    past = {port.name: Tensor("float32", (1, 1, 16, 1024)) for port in graph.cache.past()}
    run = run_costs(read_graph(path.read_bytes()), made, past)
    assert (run.read, run.written) == (pytest.approx(2 * 4 << 14, rel=1e-3), pytest.approx(2 * 4 << 14, rel=1e-3))


def test_rates_are_numbers(monkeypatch):
    monkeypatch.setattr("mmedge.profiling.layers.peaks.SIZE", SIZE)
    assert product_rate(BACKEND, "float32", 1) > 0
    assert min(bandwidths(1 << 20, 1)) > 0
    assert copy_rate(BACKEND, 1 << 20, 1) > 0
