from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.backends.onnxruntime import _settings
from mmedge.core.manifest import Graph
from mmedge.core.ports import Port
from mmedge.errors import BackendError

pytestmark = pytest.mark.parametrize("backend", ["onnxruntime"], indirect=True)

DEPTH, WIDTH, BLOCK = 128, 64, 32
GRAPH = Graph(
    component="head",
    file="graphs/head.onnx",
    inputs=(Port("hidden", "float32", (1, DEPTH)),),
    outputs=(Port("logits", "float32", (1, WIDTH)),),
    precision="int8-weights",
)
HIDDEN = np.random.default_rng(5).standard_normal((1, DEPTH), dtype=np.float32)


@pytest.fixture
def source(tmp_path):
    """`DequantizeLinear` by blocks of 32, then `MatMul`: how weight-only graphs are spelled."""
    random = np.random.default_rng(3)
    weights = random.integers(-127, 128, (DEPTH, WIDTH)).astype(np.int8)
    scales = random.random((DEPTH // BLOCK, WIDTH), dtype=np.float32) / 100
    nodes = [
        helper.make_node("DequantizeLinear", ["weights", "scales"], ["floats"], axis=0, block_size=BLOCK),
        helper.make_node("MatMul", ["hidden", "floats"], ["logits"]),
    ]
    edges = [
        helper.make_tensor_value_info(port.name, TensorProto.FLOAT, port.shape)
        for port in (*GRAPH.inputs, *GRAPH.outputs)
    ]
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(scales, "scales")]
    graph = helper.make_graph(nodes, "head", edges[:1], edges[1:], constants)
    path = tmp_path / "head.onnx"
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 23)])
    onnx.save(model, path, save_as_external_data=True, location="head.onnx.data", size_threshold=64)
    return path, weights * scales.repeat(BLOCK, 0)


def test_weights_in_blocks_give_the_right_numbers(backend, source):
    path, floats = source
    logits = backend.open(GRAPH, path).run({"hidden": HIDDEN})["logits"]
    np.testing.assert_allclose(logits, HIDDEN @ floats, atol=0.2)  # newer versions quantize the input, too


def test_no_weights_are_dequantized_at_every_run(backend, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = _settings(GRAPH, threads=1)
    options.enable_profiling = True
    engine = onnxruntime.InferenceSession(source[0], options, providers=["CPUExecutionProvider"])
    engine.run(None, {"hidden": HIDDEN})
    events = msgspec.json.decode(Path(engine.end_profiling()).read_bytes())
    ran = {event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")}
    assert ran and "DequantizeLinear" not in ran


def test_a_run_that_fails_in_the_engine_is_told_in_one_line(tower, capfd):
    pixels = np.zeros((1, 3, 8, 2), np.float32)
    with pytest.raises(BackendError, match=r"^onnxruntime cannot run `tower`: .*idx=700") as caught:
        tower.run({"pixels": pixels, "wanted": np.array([[700]])})
    assert "\n" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_a_session_works_on_after_a_run_that_failed(tower):
    pixels = np.ones((1, 3, 8, 2), np.float32)
    with pytest.raises(BackendError):
        tower.run({"pixels": pixels, "wanted": np.array([[700]])})
    assert tower.run({"pixels": pixels, "wanted": np.array([[1]])})["total"] == pixels.sum()
