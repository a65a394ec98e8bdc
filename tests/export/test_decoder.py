import numpy as np
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmedge.export.decoder import choose_token, close_decoder, drop_guards, split_wide_products

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


GUARDED = """
<ir_version: 10, opset_import: ["" : 20]>
guarded (float[1, 1, L, 8] attention_bias, bool[1, 1, L, 8] far, float[1, 1, L, 4] attended) => (float[1, 1, L, 4] end)
<float unseen = {-6000.0}, float lowest = {-inf}, float none = {0.0}, float one = {1.0}, int64[1] last = {-1}>
{
    other = Neg(attention_bias)
    bias = Where(far, unseen, MASK)
    seen = Greater(bias, lowest)
    number = Cast<to = 1>(seen)
    sum = ReduceSum(number, last)
    blind = Less(sum, one)
    out = Where(blind, none, attended)
    end = Identity(out)
}
"""


@pytest.mark.parametrize(("mask", "left"), [("attention_bias", ["Identity"]), ("other", ["Neg", "Where", "Greater"])])
def test_guards_go_where_windows_are_all_that_was_added_to_the_bias(mask, left):
    program = onnx_ir.from_onnx_text(GUARDED.replace("MASK", mask))
    drop_guards(program.graph)
    onnx_ir.passes.common.RemoveUnusedNodesPass()(program)
    assert [node.op_type for node in program.graph][:3] == left
