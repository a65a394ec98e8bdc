"""Files that are no sound ONNX graphs, and graphs that are not those of their manifest."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.core.manifest import Graph
from mmedge.core.ports import Port, Span
from mmedge.errors import BundleError
from mmedge.export.check.run import check_graphs

RELU = "float[1,4] x => float[1,4] y { y = Relu(x) }"


def checks(findings) -> list[str]:
    return [each.check for each in findings.found]


def test_an_operator_with_an_unknown_attribute_is_invalid(check):
    assert checks(check("float[4] x => float[4] y { y = Relu<depth=3>(x) }")) == ["format/invalid"]


def test_nodes_out_of_order_are_invalid(check):
    assert "format/invalid" in checks(check("float[4] x => float[4] y { y = Relu(a) a = Abs(x) }"))


def test_types_that_do_not_fit_are_found(check):
    assert "format/types" in checks(check("float[4] x, float16[4] h => float[4] y { y = Add(x, h) }"))


def test_shapes_that_do_not_fit_are_found(check):
    assert "format/types" in checks(check("float[2,3] x => float[2,2] y { y = MatMul(x, x) }"))


@pytest.mark.parametrize(
    ("port", "wrong"),
    [
        (Port("x", "float16", (1, 4)), "ports/shape"),
        (Port("x", "float32", (1, 5)), "ports/shape"),
        (Port("x", "float32", (4,)), "ports/shape"),
        (Port("pixels", "float32", (1, 4)), "ports/names"),
    ],
)
def test_an_input_that_is_not_as_promised_is_found(check, port, wrong):
    assert set(checks(check(RELU, inputs=(port,)))) == {wrong}


def test_a_fixed_size_is_no_size_that_varies(check):
    findings = check(RELU, inputs=(Port("x", "float32", (1, "length")),), profiles=({"length": Span(1, 2, 4)},))
    assert "ports/shape" in checks(findings)


@pytest.fixture
def heavy(tmp_path):
    """A graph with its weight beside it, which the checks of float16 look into."""
    weight = numpy_helper.from_array(np.ones((64, 64), np.float16), "w")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, [1, 64]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "part", value[:1], value[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "part.onnx", save_as_external_data=True, location="part.onnx.data", size_threshold=0)
    return tmp_path


@pytest.fixture
def again(device, heavy):
    """The findings about the graph as it lies there now."""
    ports = [(Port(name, "float16", (1, 64)),) for name in "xy"]
    (heavy / "ranges").mkdir()
    (heavy / "ranges" / "part.json").write_text('{"y": 1.0}')
    return lambda: checks(check_graphs([Graph("part", "part.onnx", *ports, "float16")], heavy, device))


def test_weights_beside_the_graph_are_fine(again):
    assert again() == []


def test_missing_weights_are_found(again, heavy):
    (heavy / "part.onnx.data").unlink()
    assert again() == ["format/weights"]


def test_weights_that_were_cut_off_are_found(again, heavy):
    with (heavy / "part.onnx.data").open("r+b") as file:
        file.truncate(1000)
    assert again() == ["format/weights"]


def test_a_file_that_is_no_graph_is_a_bad_bundle(again, heavy):
    (heavy / "part.onnx").write_bytes(b"\xff" * 64)
    with pytest.raises(BundleError, match="is not a well-formed ONNX graph"):
        again()


def test_small_integers_beside_the_graph_can_be_followed(device, tmp_path):
    """Inference cannot follow them in a file."""
    rows = numpy_helper.from_array(np.arange(512), "rows")
    value = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name, shape in (("p", [1]), ("y", [512]))
    ]
    graph = helper.make_graph([helper.make_node("Sub", ["rows", "p"], ["y"])], "part", value[:1], value[1:], [rows])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "part.onnx", save_as_external_data=True, location="part.onnx.data", size_threshold=0)
    ports = (Port("p", "int64", (1,)),), (Port("y", "int64", (512,)),)
    findings = check_graphs([Graph("part", "part.onnx", *ports, "float32")], tmp_path, device)
    assert findings.found == ()
    weights = next(part for part in findings.memory.run if part.what == "weights of part")
    assert weights.mib > 512 * 8 / 2**20


NASTY = {
    "an operator that does not exist": "float[4] x => float[4] y { y = NoSuchThing(x) }",
    "no inputs": "float[4] x => float[4] y { y = Relu() }",
    "too many inputs": "float[4] x => float[4] y { y = Relu(x, x) }",
    "a value from nowhere": "float[4] x => float[4] y { y = Relu(ghost) }",
    "two values of the same name": "float[4] x => float[4] y { y = Relu(x) y = Abs(x) }",
    "an attribute of another type": 'float[4] x => float[4] y { y = Softmax<axis="one">(x) }',
    "a missing attribute": "float[4] x => float[4] y { y = Cast(x) }",
    "quantization without a scale": "float[4] x => int8[4] y { y = QuantizeLinear(x) }",
    "attention of one": "float[4] x => float[4] y { y = Attention(x) }",
    "a branch that is missing": "bool c => float[4] y { y = If(c) }",
}


@pytest.mark.parametrize("name", NASTY)
def test_malformed_graphs_are_judged_without_a_crash(check, name):
    try:
        found = checks(check(NASTY[name]))
    except BundleError as refused:
        assert "is not a well-formed ONNX graph" in refused.message
    else:
        assert {"format/invalid", "format/types"} & set(found)


def test_only_sound_graphs_are_looked_into_further(check):
    assert checks(check("float[4] x => float[4] y { y = NoSuchThing(x) }")) == ["format/invalid"]


def test_a_graph_without_an_operator_set_is_judged_without_a_crash(check):
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Mine", ["x"], ["y"], domain="my.own")], "part", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("my.own", 1)], ir_version=10)
    assert "operators/domain" in checks(check(model))
