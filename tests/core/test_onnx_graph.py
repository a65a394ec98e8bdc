"""What is read of an ONNX file is what the onnx package reads."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.core.onnx_graph import Tensor, read_graph, with_outputs


@pytest.fixture
def model() -> bytes:
    nodes = [
        helper.make_node("Constant", [], ["two"], name="two", value=numpy_helper.from_array(np.float32([2.0]))),
        helper.make_node("MatMul", ["x", "w"], ["xw"], name="layer/MatMul"),
        helper.make_node("Add", ["xw", "two"], ["y"], name="layer/Add"),
        helper.make_node("Softmax", ["y"], ["z"], name="layer/Softmax", axis=-1, domain=""),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3])
    w = numpy_helper.from_array(np.zeros((4, 3), np.float32), "w")
    packed = helper.make_tensor("packed", TensorProto.INT4, [3, 3], [1] * 9)
    graph = helper.make_graph(nodes, "g", [x], [z], [w, packed])
    return helper.make_model(graph).SerializeToString()


def test_nodes_come_in_order_with_their_tensors(model):
    graph = read_graph(model)
    assert [(node.name, node.op, node.inputs, node.outputs) for node in graph.nodes] == [
        ("layer/MatMul", "MatMul", ("x", "w"), ("xw",)),
        ("layer/Add", "Add", ("xw", "two"), ("y",)),
        ("layer/Softmax", "Softmax", ("y",), ("z",)),
    ]
    assert (graph.inputs, graph.outputs) == (("x",), ("z",))


def test_attributes_that_are_numbers_are_read_with_their_sign(model):
    assert read_graph(model).nodes[-1].numbers == {"axis": -1}


def test_constants_have_a_type_and_a_shape(model):
    constants = read_graph(model).constants
    assert constants["w"] == Tensor("float32", (4, 3))
    assert constants["two"] == Tensor("float32", (1,))


def test_two_elements_of_four_bits_share_a_byte(model):
    assert read_graph(model).constants["packed"].bytes == 5


def test_an_output_that_is_appended_is_one_for_every_reader_of_protobuf(model):
    shown = onnx.load_from_string(with_outputs(model, ["xw", "y"]))
    assert [output.name for output in shown.graph.output] == ["z", "xw", "y"]
    assert read_graph(with_outputs(model, ["xw"])).outputs == ("z", "xw")


def test_nothing_is_appended_for_nothing(model):
    assert with_outputs(model, []) == model


def test_a_file_that_is_cut_off_is_refused(model):
    with pytest.raises(ValueError, match="ends beyond"):
        read_graph(model[:-5])
