import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from mmedge.export.check.remarks import BEGINNINGS, REMARKS, sentences
from mmedge.export.check.table import table, versions

ALL = ("10.3", "10.13", "10.16", "11.x")
OLD = ("10.3", "10.13")
NEW = ("10.16", "11.x")
FIRST = ("10.3",)
RESTRICTION, UNSUPPORTED, TYPE = "operators/restriction", "operators/unsupported", "operators/type"
OPSET, FLOAT32_ATTENTION = "operators/opset", "operators/attention"

Q4 = "float[1,2,4,8] q, float[1,2,4,8] k, float[1,2,4,8] v"

PLANTED = {
    # Operators that no version reads, or only later ones.
    "Unique": ("float[8] x => float[n] y { y = Unique(x) }", {UNSUPPORTED: ALL, "operators/data-dependent": ALL}),
    "Compress": (
        "float[8] x => float[n] y <bool[8] c = {1,0,1,0,1,0,1,0}> { y = Compress(x, c) }",
        {UNSUPPORTED: ALL, "operators/data-dependent": ALL},
    ),
    "BitwiseAnd": ("int32[8] x => int32[8] y { y = BitwiseAnd(x, x) }", {UNSUPPORTED: ALL}),
    "Det": ("float[4,4] x => float y { y = Det(x) }", {UNSUPPORTED: ALL}),
    "DFT": ("float[1,8,1] x => float[1,8,2] y <int64 a = {1}> { y = DFT(x, , a) }", {UNSUPPORTED: ALL}),
    "MatMulInteger": ("int8[4,4] x => int32[4,4] y { y = MatMulInteger(x, x) }", {UNSUPPORTED: ALL}),
    "ConvInteger": (
        "uint8[1,1,4,4] x => int32[1,1,4,4] y <uint8[1,1,1,1] w = {1}> { y = ConvInteger(x, w) }",
        {UNSUPPORTED: ALL},
    ),
    "QLinearMatMul": (
        "int8[4,4] x => int8[4,4] y <float s = {1.0}, int8 z = {0}> { y = QLinearMatMul(x, s, z, x, s, z, s, z) }",
        {UNSUPPORTED: ALL},
    ),
    "DynamicQuantizeLinear": (
        "float[4] x => uint8[4] y, float s, uint8 z { y, s, z = DynamicQuantizeLinear(x) }",
        {UNSUPPORTED: ALL},
    ),
    "SequenceAt": (
        "float[4] x => float[4] y <int64 i = {0}> { s = SequenceConstruct(x) y = SequenceAt(s, i) }",
        {UNSUPPORTED: ALL},
    ),
    "STFT": (
        "float[1,16,1] x => float[1,4,4,2] y <int64 step = {4}, float[4] w = ones>"
        "{ y = STFT<onesided=0>(x, step, w) }",
        {UNSUPPORTED: FIRST},
    ),
    "HannWindow": (
        "float[8] x => float[8] y <int64 n = {8}> { w = HannWindow(n) y = Mul(x, w) }",
        {UNSUPPORTED: FIRST},
    ),
    "a single Attention": (
        f"{Q4} => float[1,2,4,8] y {{ y = Attention(q, k, v) }}",
        {UNSUPPORTED: OLD, OPSET: OLD, FLOAT32_ATTENTION: NEW},
        23,
    ),
    "RMSNormalization": (
        "float[1,8] x => float[1,8] y <float[8] s = ones> { y = RMSNormalization(x, s) }",
        {UNSUPPORTED: OLD, OPSET: OLD},
        23,
    ),
    "TensorScatter": (
        "float[1,2,8,4] c, float[1,2,1,4] u, int64[1] i => float[1,2,8,4] y { y = TensorScatter(c, u, i) }",
        {UNSUPPORTED: OLD, OPSET: OLD},
        24,
    ),
    "Swish": ("float[8] x => float[8] y { y = Swish(x) }", {UNSUPPORTED: ("10.3", "10.13", "10.16"), OPSET: OLD}, 24),
    "GroupNormalization of opset 21": (
        "float[1,4,8] x => float[1,4,8] y <float[4] s = ones> { y = GroupNormalization<num_groups=2>(x,s,s) }",
        {UNSUPPORTED: FIRST, OPSET: OLD},
        21,
    ),
    "opset 8": ("float[8] x => float[8] y { y = Relu(x) }", {OPSET: ALL}, 8),
    "opset 25": ("float[8] x => float[8] y { y = Relu(x) }", {OPSET: ALL}, 25),
    # Domains.
    "contrib operator": (
        "float[1,8] x => float[1,8] y { y = com.microsoft.FastGelu(x) }",
        {"operators/domain": ALL},
    ),
    "contrib twin of an ONNX operator": (
        "float[1,8] x => float[1,8] y { y = com.microsoft.Gelu(x) }",
        {"operators/domain": ALL},
    ),
    "plugin": ("float[8] x => float[8] y { y = trt.plugins.Mine(x) }", {"operators/plugin": ALL}),
    "own plugin of a later TensorRT": (
        "float[8] x => float[8] y { y = trt.plugins.TRT_Attention(x) }",
        {UNSUPPORTED: ("10.3", "10.13", "10.16")},
    ),
    # Types.
    "float64": ("double[8] x => double[8] y { y = Relu(x) }", {TYPE: ALL, "operators/port": ALL}),
    "uint8 arithmetic": ("uint8[8] x => uint8[8] y { y = Add(x, x) }", {TYPE: ALL}),
    "integer Sqrt by way of Pow": ("int32[8] x => int32[8] y { y = Pow(x, x) }", {TYPE: FIRST}),
    "int64 CumSum": ("int64[8] x => int64[8] y <int64 a = {0}> { y = CumSum(x, a) }", {TYPE: ALL}),
    "boolean NonZero": (
        "bool[8] x => int64[1,n] y { y = NonZero(x) }",
        {TYPE: ALL, "operators/data-dependent": ALL},
    ),
    "boolean Equal": ("bool[8] x => bool[8] y { y = Equal(x, x) }", {TYPE: ALL}),
    "cast to float64": ("float[8] x => float[8] y { d = Cast<to=11>(x) y = Cast<to=1>(d) }", {TYPE: ALL}),
    "int16 input": ("int16[8] x => float[8] y { y = Cast<to=1>(x) }", {TYPE: ALL, "operators/port": ALL}),
    "bfloat16": ("bfloat16[8] x => bfloat16[8] y { y = Relu(x) }", {"operators/precision": ALL}),
    # Remarks of the table.
    "TopK of 4,000": (
        "float[5000] x => float[4000] v, int64[4000] i <int64[1] k = {4000}> { v, i = TopK(x, k) }",
        {RESTRICTION: ALL},
    ),
    "TopK of 3,840": (
        "float[5000] x => float[3840] v, int64[3840] i <int64[1] k = {3840}> { v, i = TopK(x, k) }",
        {RESTRICTION: ALL},
    ),
    "unsorted TopK": (
        "float[50] x => float[5] v, int64[5] i <int64[1] k = {5}> { v, i = TopK<sorted=0>(x, k) }",
        {RESTRICTION: ALL},
    ),
    "Resize with antialiasing": (
        "float[1,1,8,8] x => float[1,1,4,4] y <int64[4] s = {1,1,4,4}>"
        '{ y = Resize<antialias=1, mode="linear">(x, , , s) }',
        {RESTRICTION: ALL},
    ),
    "cubic Resize": (
        'float[1,1,8,8] x => float[1,1,4,4] y <int64[4] s = {1,1,4,4}> { y = Resize<mode="cubic">(x, , , s) }',
        {RESTRICTION: ALL},
    ),
    "Resize that crops": (
        "float[1,1,8,8] x => float[1,1,4,4] y <float[8] r = {0.0,0.0,0.0,0.0,1.0,1.0,1.0,1.0}, int64[4] s = {1,1,4,4}>"
        '{ y = Resize<coordinate_transformation_mode="tf_crop_and_resize">(x, r, , s) }',
        {RESTRICTION: ALL},
    ),
    "Resize that keeps the ratio": (
        "float[1,1,8,8] x => float[1,1,4,4] y <int64[4] s = {1,1,4,4}>"
        '{ y = Resize<keep_aspect_ratio_policy="not_larger">(x, , , s) }',
        {RESTRICTION: ALL},
    ),
    "LayerNormalization with its mean": (
        "float[1,4] x => float[1,4] y, float[1,1] m <float[4] s = ones> { y, m = LayerNormalization(x, s) }",
        {RESTRICTION: ALL},
    ),
    "MaxPool with indices": (
        "float[1,1,8,8] x => float[1,1,4,4] y, int64[1,1,4,4] i"
        "{ y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }",
        {RESTRICTION: ALL},
    ),
    "MaxPool over one dimension": (
        "float[1,1,8] x => float[1,1,4] y { y = MaxPool<kernel_shape=[2], strides=[2]>(x) }",
        {RESTRICTION: ALL},
    ),
    "AveragePool with dilations": (
        "float[1,1,8,8] x => float[1,1,6,6] y { y = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(x) }",
        {RESTRICTION: ALL},
    ),
    "ScatterND that says how to reduce": (
        "float[8] x, float[1] u => float[8] y <int64[1,1] i = {0}>"
        '{ y = ScatterND<reduction="none">(x, i, u) }',
        {RESTRICTION: FIRST},
    ),
    "ScatterND that adds": (
        'float[8] x, float[1] u => float[8] y <int64[1,1] i = {0}> { y = ScatterND<reduction="add">(x, i, u) }',
        {RESTRICTION: ALL},
    ),
    "computed axes of ReduceSum": (
        "float[4,8] x, int64[1] a => float[r,c] y { y = ReduceSum(x, a) }",
        {RESTRICTION: ALL},
    ),
    "axes of Squeeze that can be folded": (
        "float[1,8] x => float[8] y <int64[1] a = {1}, int64[1] b = {1}> { axes = Sub(a, b) y = Squeeze(x, axes) }",
        {RESTRICTION: FIRST},
    ),
    "computed axes of Unsqueeze": (
        "float[8] x, int64[1] a => float[r,c] y { y = Unsqueeze(x, a) }",
        {RESTRICTION: ALL},
    ),
    "axes of Pad that can be folded": (
        "float[2,8] x => float[2,9] y <int64[2] p = {0,1}, int64[1] a = {0}, int64[1] b = {1}, float v = {0.0}>"
        "{ axes = Add(a, b) y = Pad(x, p, v, axes) }",
        {RESTRICTION: FIRST},
    ),
    "axis of CumSum that can be folded": (
        "float[2,8] x => float[2,8] y <int64 a = {0}, int64 b = {1}> { axis = Add(a, b) y = CumSum(x, axis) }",
        {RESTRICTION: FIRST},
    ),
    "Dropout that trains": (
        "float[8] x => float[8] y <float r = {0.5}, bool t = {1}> { y = Dropout(x, r, t) }",
        {RESTRICTION: ALL},
    ),
    "GridSample of volumes": (
        "float[1,1,4,4,4] x, float[1,4,4,4,3] g => float[1,1,4,4,4] y { y = GridSample(x, g) }",
        {RESTRICTION: ALL},
    ),
    "EyeLike of a size that varies": (
        "float[n,n] x => float[n,n] y { e = EyeLike(x) y = Add(x, e) }",
        {RESTRICTION: ALL},
    ),
    "Hardmax along a size that varies": ("float[1,n] x => float[1,n] y { y = Hardmax(x) }", {RESTRICTION: ALL}),
    "LSTM with another layout": (
        "float[1,3,2] x, float[1,16,2] w, float[1,16,4] r => float[1,3,1,4] y"
        "{ y = LSTM<hidden_size=4, layout=1>(x, w, r) }",
        {RESTRICTION: ALL},
    ),
    "bidirectional GRU of two kinds": (
        "float[3,1,2] x, float[2,12,2] w, float[2,12,4] r => float[3,2,1,4] y { y = GRU<hidden_size=4,"
        'direction="bidirectional", activations=["Sigmoid","Tanh","Sigmoid","Relu"]>(x, w, r) }',
        {RESTRICTION: ALL},
    ),
    "Attention over a past": (
        f"{Q4}, float[1,2,3,8] pk, float[1,2,3,8] pv => float[1,2,4,8] y, float[1,2,7,8] nk, float[1,2,7,8] nv"
        "{ y, nk, nv = Attention(q, k, v, , pk, pv) }",
        {UNSUPPORTED: OLD, OPSET: OLD, RESTRICTION: NEW, FLOAT32_ATTENTION: NEW},
        23,
    ),
    "Attention of three dimensions": (
        "float[1,4,16] q => float[1,4,16] y { y = Attention<q_num_heads=2, kv_num_heads=2>(q, q, q) }",
        {UNSUPPORTED: OLD, OPSET: OLD, RESTRICTION: NEW, FLOAT32_ATTENTION: NEW},
        23,
    ),
    "Attention with a cap": (
        f"{Q4} => float[1,2,4,8] y {{ y = Attention<softcap=30.0>(q, k, v) }}",
        {UNSUPPORTED: OLD, OPSET: OLD, RESTRICTION: NEW, FLOAT32_ATTENTION: NEW},
        23,
    ),
    "TensorScatter along another axis": (
        "float[1,8,2,4] c, float[1,1,2,4] u, int64[1] i => float[1,8,2,4] y { y = TensorScatter<axis=1>(c, u, i) }",
        {UNSUPPORTED: OLD, OPSET: OLD, RESTRICTION: ("10.16", "11.x")},
        24,
    ),
    "complex STFT": (
        "float[1,16,2] x => float[1,4,4,2] y <int64 step = {4}, float[4] w = ones>"
        "{ y = STFT<onesided=0>(x, step, w) }",
        {UNSUPPORTED: FIRST, RESTRICTION: ("10.13", "10.16", "11.x")},
    ),
    "branches of different rank": (
        "bool c, float[1,4] x => float y { y = If(c) <then_branch = t () => (float[1,4] a) { a = Identity(x) },"
        "else_branch = e () => (float b) { b = ReduceSum<keepdims=0>(x) }> }",
        {RESTRICTION: ALL, "operators/data-dependent": ALL},
    ),
    # What depends on values.
    "values that become sizes": (
        "float[8] x, int64[1] n => float[m] y { y = Expand(x, n) }",
        {"operators/sizes-from-values": ALL},
    ),
    "a position that cuts": (
        "float[8] x, int64[1] p => float[m] y <int64[1] z = {0}> { y = Slice(x, z, p) }",
        {"operators/sizes-from-values": ALL},
    ),
    "an operator that is unsupported inside a branch": (
        "bool c, int32[4] x => int32[4] y { y = If(c) <then_branch = t () => (int32[4] a) { a = BitwiseNot(x) },"
        "else_branch = e () => (int32[4] b) { b = Identity(x) }> }",
        {UNSUPPORTED: ALL, "operators/data-dependent": ALL},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_rejected_for_this_reason_in_these_versions(name, rejected):
    text, expected, *opset = PLANTED[name]
    found = rejected(text, opset=opset[0] if opset else 20)
    assert found == expected


CLEAN = {
    "a layer": "float[1,4] x => float[1,4] y <float[4,4] w = ones, float[4] s = ones>"
    "{ n = LayerNormalization(x, s, s) m = MatMul(n, w) y = Gelu(m) }",
    "a float16 Relu": "float16[4] x => float16[4] y { y = Relu(x) }",
    "spelled attention": f"{Q4} => float[1,2,4,8] y {{ t = Transpose<perm=[0,1,3,2]>(k) s = MatMul(q, t)"
    "p = Softmax(s) y = MatMul(p, v) }",
    "a pixel type that is cast": "uint8[1,3,4,4] x => float[1,3,4,4] y { y = Cast<to=1>(x) }",
    "a token from a table": "int64[1,n] i => float[1,n,2] y <float[3,2] t = ones> { y = Gather(t, i) }",
    "the likeliest": "float[1,1,9] x => int64[1,1] y { y = ArgMax<axis=-1, keepdims=0>(x) }",
    "sizes from shapes": "float[1,n,4] x => float[n,4] y <int64[1] f = {4}>"
    "{ s = Shape<start=1, end=2>(x) to = Concat<axis=0>(s, f) y = Reshape(x, to) }",
    "a boolean mask": "float[4] x, bool[4] m => float[4] y <float z = {0.0}> { y = Where(m, x, z) }",
    "a written row": "float[1,2,8,4] c, float[1,2,8,4] u, int64[1] p => float[1,2,8,4] y"
    "<int64[8] r = {0,1,2,3,4,5,6,7}, int64[4] to = {1,1,8,1}>"
    "{ h = Equal(r, p) m = Reshape(h, to) y = Where(m, u, c) }",
    "constants that fold": "float[4,8] x => float[32] y <int64[1] a = {4}, int64[1] b = {8}>"
    "{ to = Mul(a, b) y = Reshape(x, to) }",
    "a small TopK": "float[5000] x => float[3] v, int64[3] i <int64[1] k = {3}> { v, i = TopK(x, k) }",
    "a bilinear Resize": "float[1,1,8,8] x => float[1,1,4,4] y <int64[4] s = {1,1,4,4}>"
    '{ y = Resize<mode="linear">(x, , , s) }',
}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_found_in_a_clean_graph(name, check):
    assert check(CLEAN[name], ranges={"y": 1.0}).found == ()


def test_a_domain_is_ignored_by_tensorrt_and_the_finding_says_what_is_read_instead(check):
    found = check("float[1,8] x => float[1,8] y { y = com.microsoft.RotaryEmbedding(x) }").found
    assert [(each.stacks, "same name" in each.message) for each in found] == [(OLD, False), (ALL[2:], True)]


def test_a_local_function_is_checked_by_what_it_does(check):
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20, "local" : 1]>'
        "part (int32[4] x) => (int32[4] y) { y = local.twist(x) }"
        '<opset_import: ["" : 20], domain: "local"> twist (a) => (b) { b = BitwiseNot(a) }'
    )
    assert [each.check for each in check(model).found] == [UNSUPPORTED]


def test_a_sequence_at_the_edge_is_no_tensor(check):
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [4])
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    index = helper.make_tensor("i", TensorProto.INT64, [], [0])
    graph = helper.make_graph([helper.make_node("SequenceAt", ["s", "i"], ["y"])], "part", [sequence], [value], [index])
    found = check(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)).found
    assert {"operators/port", UNSUPPORTED} <= {each.check for each in found}


def test_text_at_the_edge_is_refused(rejected):
    found = rejected("string[4] x => string[4] y { y = Identity(x) }")
    assert found.keys() >= {"operators/port", TYPE}


def test_a_type_that_the_target_computes_with_is_accepted(check, device):
    wide = replace(device, precisions=(*device.precisions, "bfloat16"))
    assert check("bfloat16[8] x => bfloat16[8] y { y = Relu(x) }", wide).found == ()


def test_a_finding_names_the_node_its_module_and_what_to_do(check):
    name = "vision_model.encoder.layers.3.mlp.fc1/TopK_12"
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> part (float[8] x) => (float[n] y) { y = Unique(x) }'
    )
    model.graph.node[0].name = name
    found = check(model).found[0]
    assert (found.component, found.node, found.module) == ("part", name, "vision_model.encoder.layers.3.mlp.fc1")
    assert found.hint


def test_every_remark_of_the_tables_is_a_check_or_known_not_to_be_one():
    said = {
        sentence
        for version in versions()
        for row in table(version).operators.values()
        if row.supported
        for sentence in sentences(row.restrictions)
    }
    unknown = {each for each in said - REMARKS.keys() if not any(each.startswith(start) for start in BEGINNINGS)}
    assert not unknown and REMARKS.keys() <= said


def test_where_a_table_does_not_know_its_newest_opset_it_is_that_of_the_one_below():
    assert [table(version).newest_opset for version in ALL] == [20, 20, 24, 24]
