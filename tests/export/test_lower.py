import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.errors import ModelError
from mmedge.export.lower import lower

X = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)


def graph(operator: str, outputs: int, *constants: np.ndarray, rows: int | str = 2, **attributes) -> onnx_ir.Model:
    """One operator of set 18 on ``x`` float32 ``[rows, 6]``."""
    names = [f"c{index}" for index in range(len(constants))]
    made = [f"y{index}" for index in range(outputs)]
    body = helper.make_graph(
        [helper.make_node(operator, ["x", *names], made, name="layer.0/node", **attributes)],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made],
        [numpy_helper.from_array(value, name) for value, name in zip(constants, names, strict=True)],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx_ir.from_proto(onnx.shape_inference.infer_shapes(model))


def run(program: onnx_ir.Model) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(onnx_ir.to_proto(program).SerializeToString()).run(None, {"x": X})


@pytest.mark.parametrize(
    "made",
    [
        lambda: graph("Split", 3, axis=1, num_outputs=3),
        lambda: graph("Split", 2, np.array([2, 4]), axis=1),
        lambda: graph("ReduceMean", 1, np.array([1]), keepdims=1),
        lambda: graph("ReduceMax", 1, keepdims=0),
        lambda: graph("Relu", 1),
    ],
    ids=["Split", "Split with sizes", "ReduceMean", "ReduceMax of all", "Relu"],
)
def test_an_older_operator_set_gives_the_same_numbers(made):
    want, old = run(made()), lower(made(), 17)
    proto = onnx_ir.to_proto(old)
    assert proto.opset_import[0].version == 17
    onnx.checker.check_model(proto, full_check=True)
    for got, expected in zip(run(old), want, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: graph("Mish", 1), "`layer.0/node` cannot be written in operator set 17: Mish"),
        (lambda: graph("Split", 2, rows="rows", axis=0, num_outputs=2), "splits sizes that vary"),
    ],
)
def test_what_an_older_operator_set_cannot_say_is_refused_by_name(made, message):
    with pytest.raises(ModelError, match=message):
        lower(made(), 17)
