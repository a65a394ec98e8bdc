import numpy as np
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.export.decoder import choose_token, close_decoder, split_wide_products

WIDTH, VOCABULARY = 16, 40_000


def decoder() -> onnx_ir.Model:
    """Hidden vectors to the scores of a vocabulary."""
    weight = np.random.default_rng(0).normal(size=(WIDTH, VOCABULARY)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["hidden", "weight"], ["logits"], name="head/MatMul")],
        "decoder",
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [1, 1, WIDTH])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, VOCABULARY])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx_ir.from_proto(model)


def run(program: onnx_ir.Model, seed: int) -> list[np.ndarray]:
    hidden = np.random.default_rng(seed).normal(size=(1, 1, WIDTH)).astype(np.float32)
    session = onnxruntime.InferenceSession(onnx_ir.to_proto(program).SerializeToString())
    return session.run(None, {"hidden": hidden})


def test_the_token_is_the_likeliest_of_the_logits():
    program = decoder()
    choose_token(program.graph)
    for seed in range(5):
        token, logits = run(program, seed)
        assert token.dtype == np.int64 and token.shape == (1, 1) and token[0, 0] == logits[0, 0].argmax()


@pytest.mark.parametrize(("limit", "parts"), [(1, 2), (2, 1), (0, 1)])
def test_a_product_that_needs_too_much_in_one_piece_is_split(limit, parts):
    """Its weight is 1.22 MiB in float16, 1.83 MiB with what the compiler takes for it."""
    whole, program = decoder(), decoder()
    close_decoder(program, limit)
    assert [node.op_type for node in program.graph].count("MatMul") == parts
    for seed in range(3):
        np.testing.assert_array_equal(run(program, seed)[1], run(whole, seed)[0])


def test_parts_are_as_many_as_are_needed():
    program = decoder()
    split_wide_products(program.graph, contiguous_mb=1)
    largest = max(value.const_value.size for value in program.graph.initializers.values() if value.uses())
    assert largest * 2 * 1.5 <= 1 << 20
