import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from mmedge.core.ports import CacheShape

ALL = ("10.3", "10.13", "10.16", "11.x")
TEN = ("10.3", "10.13", "10.16")

# An activation `a`, quantized and back as `d`; a weight `v` with a scale for each output channel.
X = "float[2,4] x => float[2,4] y <float s = {0.5}, int8 z = {0}, int8[4,4] w = ones, float[4] c = ones, int8[4] o"
ZEROS = " = {0,0,0,0}"
PAIR = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
WEIGHT = "v = DequantizeLinear<axis=1>(w, c, o)"


def product(body: str, constants: str = "") -> str:
    return f"{X}{ZEROS}{constants}> {{ {body} }}"


PLANTED = {
    "an unsigned activation": (
        product("q = QuantizeLinear(x, s, u) d = DequantizeLinear(q, s, u) y = Relu(d)", ", uint8 u = {0}"),
        {"qdq/unsigned": ALL},
    ),
    "no zero point, which is an unsigned one": (
        product("q = QuantizeLinear(x, s) d = DequantizeLinear(q, s) y = Relu(d)"),
        {"qdq/unsigned": ALL},
    ),
    "a zero point of 3": (
        product("q = QuantizeLinear(x, s, t) d = DequantizeLinear(q, s, t) y = Relu(d)", ", int8 t = {3}"),
        {"qdq/zero-point": ALL},
    ),
    "a computed zero point": (
        product(f"t = Sub(z, z) q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, t) {WEIGHT} y = MatMul(d, v)"),
        {"qdq/zero-point": ALL, "operators/type": ALL},
    ),
    "an int32 bias": (
        product(f"{PAIR} {WEIGHT} m = MatMul(d, v) e = DequantizeLinear(b, s) y = Add(m, e)", ", int32[4] b = ones"),
        {"qdq/bias": ALL},
    ),
    "an activation with a scale for each column": (
        product(f"q = QuantizeLinear<axis=1>(x, c, o) d = DequantizeLinear<axis=1>(q, c, o) {WEIGHT} y = MatMul(d, v)"),
        {"qdq/activation-scales": ALL},
    ),
    "a weight with a single scale": (
        product(f"{PAIR} v = DequantizeLinear(w, s, z) y = MatMul(d, v)"),
        {"qdq/weight-scales": ALL},
    ),
    "a weight with a scale for each input": (
        product(f"{PAIR} v = DequantizeLinear<axis=0>(w, c, o) y = MatMul(d, v)"),
        {"qdq/weight-axis": ALL},
    ),
    "a weight with a scale for each input, turned before it is used": (
        product(f"{PAIR} {WEIGHT} t = Transpose<perm=[1,0]>(v) y = MatMul(d, t)"),
        {"qdq/weight-axis": ALL},
    ),
    "a turned Gemm with scales along its inputs": (
        product(f"{PAIR} {WEIGHT} y = Gemm<transB=1>(d, v)"),
        {"qdq/weight-axis": ALL},
    ),
    "a computed scale": (
        product(f"r = ReduceMax<keepdims=0>(x) q = QuantizeLinear(x, r, z) d = DequantizeLinear(q, s, z) {WEIGHT}"
        "y = MatMul(d, v)"),
        {"qdq/scale": ALL},
    ),
    "a scale of 0": (
        product(f"q = QuantizeLinear(x, n, z) d = DequantizeLinear(q, n, z) {WEIGHT} y = MatMul(d, v)",
        ", float n = {0.0}"),
        {"qdq/scale": ALL},
    ),
    "a scale below 0": (
        product(f"q = QuantizeLinear(x, n, z) d = DequantizeLinear(q, n, z) {WEIGHT} y = MatMul(d, v)",
        ", float n = {-0.5}"),
        {"qdq/scale": ALL},
    ),
    "integers read by an operator": (
        product("q = QuantizeLinear(x, s, z) y = Cast<to=1>(q)"),
        {"qdq/alone": ALL, "operators/type": ALL},
    ),
    "the quantized output of a product": (
        product(f"{PAIR} {WEIGHT} m = MatMul(d, v) qo = QuantizeLinear(m, s, z) e = DequantizeLinear(qo, s, z)"
        "y = Add(e, x)"),
        {"qdq/output": ALL},
    ),
    "the quantized output of a product with its bias": (
        product(f"{PAIR} {WEIGHT} m = MatMul(d, v) n = Add(m, c) qo = QuantizeLinear(n, s, z)"
        "y = DequantizeLinear(qo, s, z)"),
        {"qdq/output": ALL},
    ),
    "a quantized Softmax": (
        product(f"{PAIR} y = Softmax(d)"),
        {"qdq/sensitive": ALL},
    ),
    "a quantized norm": (
        product(f"{PAIR} y = LayerNormalization(d, c)"),
        {"qdq/sensitive": ALL},
    ),
    "a product behind an addition": (
        product(f"{PAIR} {WEIGHT} n = Add(d, c) y = MatMul(n, v)"),
        {"qdq/separated": ALL},
    ),
    "a weight that is cast": (
        product(f"{PAIR} {WEIGHT} n = Mul(v, c) y = MatMul(d, n)"),
        {"qdq/separated": ALL},
    ),
    "a first convolution in integers": (
        "float[1,2,4,4] x => float[1,3,4,4] y <float s = {0.5}, int8 z = {0}, int8[3,2,1,1] w = ones,"
        f"float[3] c = ones> {{ {PAIR} v = DequantizeLinear<axis=0>(w, c) y = Conv(d, v) }}",
        {"qdq/first": ALL},
    ),
    "two scales for one value": (
        product(f"{PAIR} {WEIGHT} q2 = QuantizeLinear(x, h, z) d2 = DequantizeLinear(q2, h, z)"
        "m = MatMul(d, v) n = MatMul(d2, v) y = Add(m, n)", ", float h = {0.25}"),
        {"qdq/several-scales": ALL},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_rejected_for_this_reason_in_these_versions(name, rejected):
    text, expected = PLANTED[name]
    assert rejected(text) == expected


CLEAN = {
    "a product": product(f"{PAIR} {WEIGHT} y = MatMul(d, v)"),
    "a product of a weight that is quantized in the graph": product(
        f"{PAIR} wq = QuantizeLinear<axis=1>(f, c, o) v = DequantizeLinear<axis=1>(wq, c, o) y = MatMul(d, v)",
        ", float[4,4] f = ones",
    ),
    "a Gemm": product(f"{PAIR} {WEIGHT} y = Gemm(d, v, c)"),
    "a turned Gemm": product(f"{PAIR} v = DequantizeLinear<axis=0>(w, c, o) y = Gemm<transB=1>(d, v, c)"),
    "a weight that is turned": product(
        f"{PAIR} v = DequantizeLinear<axis=0>(w, c, o) t = Transpose<perm=[1,0]>(v) y = MatMul(d, t)"
    ),
    "a product behind a reshape": product(
        f"{PAIR} {WEIGHT} r = Reshape(d, to) m = MatMul(r, v) y = Reshape(m, back)",
        ", int64[3] to = {1,2,4}, int64[2] back = {2,4}",
    ),
    "two products in a row": product(
        f"{PAIR} {WEIGHT} m = MatMul(d, v) n = Add(m, c) r = Relu(n)"
        "q2 = QuantizeLinear(r, s, z) d2 = DequantizeLinear(q2, s, z) y = MatMul(d2, v)"
    ),
    "a convolution": "float[1,2,4,4] p => float[1,3,4,4] y <float s = {0.5}, int8 z = {0}, int8[3,2,1,1] w = ones,"
    f"float[3] c = ones> {{ x = Relu(p) {PAIR} v = DequantizeLinear<axis=0>(w, c) y = Conv(d, v) }}",
    "words looked up in integers": "int64[1,3] i => float[1,3,4] y <int8[9,4] w = ones, float[9] c = ones>"
    "{ v = DequantizeLinear<axis=0>(w, c) e = Gather(v, i) y = Softmax(e) }",
}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_found_in_a_clean_graph(name, check):
    assert check(CLEAN[name]).found == ()


def test_scores_of_a_decoder_from_integers_are_warned_about(check):
    text = product(f"{PAIR} {WEIGHT} m = MatMul(d, v) y = Add(m, c)")
    cache = CacheShape(layers=1, heads=1, head_dim=1, capacity=4)
    assert "qdq/last" in {each.check for each in check(text, cache=cache).of("warning")}


def attention(quantized: set[str]) -> str:
    """``softmax(q k) v``, some of its four factors quantized."""
    lines = []
    for name in ("q", "k", "v"):
        pair = f"{name}i = QuantizeLinear({name}, s, z) {name}d = DequantizeLinear({name}i, s, z)"
        lines.append(pair if name in quantized else f"{name}d = Identity({name})")
    lines.append("scores = MatMul(qd, kd) scaled = Mul(scores, s) p = Softmax(scaled)")
    pair = "pi = QuantizeLinear(p, s, z) pd = DequantizeLinear(pi, s, z)"
    lines.append(pair if "p" in quantized else "pd = Identity(p)")
    body = " ".join([*lines, "y = MatMul(pd, vd)"])
    ports = "float[1,2,4,4] q, float[1,2,4,4] k, float[1,2,4,4] v => float[1,2,4,4] y"
    return f"{ports} <float s = {{0.5}}, int8 z = {{0}}> {{ {body} }}"


@pytest.mark.parametrize("quantized", ["q", "qk", "v", "qkp", "pv"])
def test_attention_that_is_quantized_by_halves_is_warned_about(quantized, rejected):
    assert rejected(attention(set(quantized))) == {"qdq/attention": ALL}


@pytest.mark.parametrize("quantized", ["", "qkpv"])
def test_attention_that_is_quantized_whole_or_not_at_all_is_fine(quantized, check):
    assert check(attention(set(quantized))).found == ()


def blocked(kind: int, shape: tuple[int, ...], block: int, axis: int) -> onnx.ModelProto:
    """A product whose weight has a scale for each block along ``axis``."""
    scales = tuple(size // block if index == axis else size for index, size in enumerate(shape))
    weight = helper.make_tensor("w", kind, shape, np.ones(shape, np.int8).ravel().tolist())
    scale = numpy_helper.from_array(np.ones(scales, np.float32), "s")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"], axis=axis, block_size=block),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*shape[:-2], 2, shape[-2]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*shape[:-2], 2, shape[-1]])]
    graph = helper.make_graph(nodes, "part", inputs, outputs, [weight, scale])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


OLD_OPSET = {"operators/opset": ("10.3", "10.13")}


def test_blocks_of_int4_in_a_matrix_are_doubted_where_the_table_contradicts_itself(check):
    found = check(blocked(TensorProto.INT4, (8, 4), 4, 0)).found
    assert [(each.check, each.severity, each.stacks) for each in found] == [
        ("operators/opset", "warning", ("10.3",)),
        ("operators/opset", "warning", ("10.13",)),
    ]


def test_blocks_of_int4_in_a_stack_of_matrices_are_read_from_version_11_on(rejected):
    assert rejected(blocked(TensorProto.INT4, (2, 8, 4), 4, 1)) == {**OLD_OPSET, "qdq/blocks": TEN}


def test_blocks_along_the_first_of_three_axes_are_read_by_no_version(rejected):
    assert rejected(blocked(TensorProto.INT4, (4, 8, 4), 2, 0)) == {**OLD_OPSET, "qdq/blocks": ALL}


def test_unsigned_int4_is_refused(rejected):
    assert rejected(blocked(TensorProto.UINT4, (8, 4), 4, 0)) == {**OLD_OPSET, "qdq/unsigned": ALL}


HALF = (
    "float16[2,4] x => float16[2,4] y <float16 s = {0.5}, int8 z = {0}, int8[4,4] w = ones, float16[4] c = ones,"
    "int8[4] o = {0,0,0,0}>"
)


def test_where_types_are_obeyed_scales_are_float16_among_float16(check, device):
    typed = replace(device, typed=True)
    text = f"{HALF} {{ {PAIR} {WEIGHT} y = MatMul(d, v) }}"
    assert check(text, typed, ranges={"x": 1, "d": 1, "v": 1, "y": 1}, precision="int8").found == ()


def test_where_types_are_obeyed_a_scale_of_another_type_than_its_values_is_refused(check, device):
    text = f"{HALF.replace('int8 z', 'float t = {0.5}, int8 z')} {{ q = QuantizeLinear(x, t, z) "
    text += f"d = DequantizeLinear(q, s, z) {WEIGHT} y = MatMul(d, v) }}"
    found = check(text, replace(device, typed=True), opset=23, precision="int8").of("error")
    assert ("qdq/scale-type", "its scale is FLOAT, `x` is FLOAT16") in {(each.check, each.message) for each in found}


def test_where_types_are_obeyed_integers_between_float32_are_warned_about(rejected, device):
    text = product(f"{PAIR} {WEIGHT} y = MatMul(d, v)")
    assert rejected(text, replace(device, typed=True), precision="int8") == {
        "qdq/scale-type": ALL,
        "target/float32": ALL,
    }


def test_a_scale_that_float16_holds_badly_is_warned_about(rejected):
    text = f"{HALF.replace('s = {0.5}', 's = {0.00001}')} {{ {PAIR} {WEIGHT} y = MatMul(d, v) }}"
    assert "qdq/scale" in rejected(text)


def test_an_integer_node_has_the_module_of_the_product_behind_it(check):
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> part (float[2,4] x) => (float[2,4] y)'
        "<float s = {0.5}, int8 z = {3}, float[4,4] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}>"
        "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = MatMul(d, w) }"
    )
    model.graph.node[2].name = "text_model.layers.0.mlp/MatMul_3"
    assert {each.module for each in check(model).found} == {"text_model.layers.0.mlp"}
