import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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


def test_compiled_weights_give_the_right_numbers(backend, source, tmp_path):
    path, floats = source
    (output := tmp_path / "made").mkdir()
    artifact = backend.compile(GRAPH, path, output)
    assert artifact.parent == output
    compiled, plain = (backend.open(GRAPH, file).run({"hidden": HIDDEN})["logits"] for file in (artifact, path))
    np.testing.assert_allclose(compiled, plain, atol=1e-5)
    np.testing.assert_allclose(compiled, HIDDEN @ floats, atol=0.2)  # the kernel quantizes its input, too


def test_no_weights_are_dequantized_at_every_run(backend, source, tmp_path):
    (output := tmp_path / "made").mkdir()
    assert "DequantizeLinear" not in operators(backend.compile(GRAPH, source[0], output))


def operators(path) -> set[str]:
    return {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


@pytest.mark.parametrize(("precision", "compiles"), [("float32", False), ("int8", False), ("int4-weights", True)])
def test_only_weight_only_graphs_are_compiled(precision, compiles, backend):
    assert backend.compiles(Graph("head", GRAPH.file, (), (), precision)) is compiles


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
