"""A float16 graph spelled with its rounding, against numpy's float16 operator by operator."""

import numpy as np
import onnx_ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from mmedge.export.rounding import has_half, spell_rounding

WEIGHT = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float16)


def chain(
    *nodes: tuple[str, list[str], str], kind: int = TensorProto.FLOAT16, **constants: np.ndarray
) -> onnx_ir.Model:
    """``x`` float16 ``[1, 64]`` through nodes to ``y``."""
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, [output], name=output) for operator, inputs, output in nodes],
        "chain",
        [helper.make_tensor_value_info("x", kind, [1, 64])],
        [helper.make_tensor_value_info("y", kind, [1, 64])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))


def run(program: onnx_ir.Model, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(program).SerializeToString())
    return session.run(None, {"x": x})[0]


def products() -> onnx_ir.Model:
    return chain(("MatMul", ["x", "w"], "a"), ("Mul", ["a", "b"], "y"), w=WEIGHT, b=np.array([1e-3], np.float16))


def test_what_lies_between_operators_is_rounded_to_float16():
    x = np.random.default_rng(1).normal(size=(1, 64)).astype(np.float16)
    between = (x.astype(np.float32) @ WEIGHT.astype(np.float32)).astype(np.float16)
    want = (between.astype(np.float32) * np.float32(np.float16(1e-3))).astype(np.float16)
    got = run(spell_rounding(products()), x)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, want)


def test_a_value_that_float16_cannot_hold_is_infinite():
    x = np.full((1, 64), 300, np.float16)
    squares = chain(("Mul", ["x", "x"], "a"), ("Mul", ["a", "b"], "y"), b=np.array([1e-4], np.float16))
    assert np.isfinite(run(squares, x)).all(), "this engine computes in float32: why the other spelling is needed"
    assert np.isinf(run(spell_rounding(squares), x)).all()


def test_islands_in_float32_are_left_alone():
    x = np.full((1, 64), 300, np.float16)
    program = chain(
        ("Cast", ["x"], "wide"), ("Mul", ["wide", "wide"], "a"), ("Mul", ["a", "b"], "c"), ("Cast", ["c"], "y"),
        b=np.array([1e-4], np.float32),
    )  # fmt: skip
    kinds = iter((TensorProto.FLOAT, TensorProto.FLOAT16))
    for node in program.graph:
        if node.op_type == "Cast":
            node.attributes["to"] = onnx_ir.AttrInt64("to", next(kinds))
    np.testing.assert_allclose(run(spell_rounding(program), x), 9.0, rtol=1e-3)


def test_a_graph_without_float16_has_none():
    assert has_half(products())
    assert not has_half(chain(("Relu", ["x"], "y"), kind=TensorProto.FLOAT))
