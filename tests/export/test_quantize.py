"""Quantized graphs: near the float ones on both engines, spelled as each engine wants, and always the same bytes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from mmedge.core import find
from mmedge.errors import InputError, PlanError
from mmedge.export import weight_only
from mmedge.export.quantize import quantize

CPU, JETSON = find.target("cpu"), find.target("jetson")
STANDARD = msgspec.structs.replace(CPU, weights="blocks")
OLD = msgspec.structs.replace(STANDARD, opset=20)
BOTH_SPELLINGS = pytest.mark.parametrize("target", [CPU, STANDARD], ids=["nbits", "blocks"])


@pytest.fixture
def tower_int8(graphs, tower, pictures, tmp_path):
    output = tmp_path / "int8.onnx"
    quantize(graphs.tower, tower, output, precision="int8", feeds=pictures, target=CPU)
    return output


@pytest.fixture
def answer(pictures):
    """What the decoder is fed in one run over seven tokens."""
    random = np.random.default_rng(4)
    held = {name: random.normal(0, 1, (1, 2, 16, 32)).astype(np.float32) for name in ("key", "value")}
    past = {f"past.0.{part}": np.zeros((1, 2, 0, 32), np.float32) for part in ("key", "value")}
    return {"input_ids": random.integers(0, 96, (1, 7)), "position_ids": np.arange(7)[None], **held, **past}


def on_onnxruntime(path, feeds):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def on_openvino(path, feeds):
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(tensor) for tensor in model(feeds).values()]


ENGINES = [pytest.param(on_onnxruntime, id="onnxruntime"), pytest.param(on_openvino, id="openvino")]


def least_cosine(want, got):
    assert all(np.isfinite(tensor).all() for tensor in got)
    pairs = [(a.ravel().astype(np.float64), b.ravel().astype(np.float64)) for a, b in zip(want, got, strict=True)]
    return min(float(a @ b / np.sqrt((a @ a) * (b @ b))) for a, b in pairs)


def executed(path):
    """Kinds of nodes that ONNX Runtime runs, after its own rewriting."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".executed.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath, load_external_data=False)
    return Counter(node.op_type for node in model.graph.node)


def loaded(path):
    """The graph, its nodes by output, and its constants by name."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return graph, {output: node for node in graph.node for output in node.output}, constants


def kinds(graph):
    return Counter(node.op_type for node in graph.node)


# Static int8


@pytest.mark.parametrize("run", ENGINES)
def test_a_static_int8_tower_is_near_the_float_one(tower, tower_int8, pictures, run):
    for feeds in pictures[:4]:
        assert least_cosine(on_onnxruntime(tower, feeds), run(tower_int8, feeds)) > 0.999


def test_onnxruntime_runs_every_product_of_a_static_int8_tower_in_integers(tower_int8):
    ran = executed(tower_int8)
    assert ran["QGemm"] == 6
    assert not {"Gemm", "MatMul", "DequantizeLinear"} & ran.keys()


def test_static_int8_needs_no_quantizing_operator_that_onnxruntime_1_23_lacks(tower_int8):
    graph, _, _ = loaded(tower_int8)
    marks = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {node.domain for node in marks} == {"com.microsoft"}


def test_a_value_is_quantized_once_for_all_products_that_read_it(tower_int8):
    graph, _, _ = loaded(tower_int8)
    assert kinds(graph)["QuantizeLinear"] == 5  # `to_key` and `to_value` read the same


def test_what_is_no_product_stays_in_float(tower_int8):
    graph, made_by, _ = loaded(tower_int8)
    readers = [node for node in graph.node for name in node.input if _kind_of(made_by, name) == "DequantizeLinear"]
    assert {node.op_type for node in readers} == {"Gemm"}
    assert kinds(graph)["Attention"] == 1


def test_the_first_convolution_stays_in_float(tower_int8):
    graph, _, constants = loaded(tower_int8)
    (patches,) = (node for node in graph.node if node.op_type == "Conv")
    assert constants[patches.input[1]].dtype == np.float32


def test_later_convolutions_are_integers_with_integer_outputs(tmp_path, pictures, graphs):
    random = np.random.default_rng(5)
    source = small_graph(
        tmp_path / "float.onnx",
        [("Conv", ["pixels", "w0"], ["a"], {"name": "first"}), ("Conv", ["a", "w1", "b"], ["y"], {"name": "second"})],
        {"w0": random.normal(0, 0.2, (8, 3, 3, 3)), "w1": random.normal(0, 0.2, (4, 8, 3, 3)), "b": np.ones(4)},
        {"pixels": [1, 3, 32, 32]},
        {"y": [1, 4, 28, 28]},
    )
    output = tmp_path / "int8.onnx"
    quantize(graphs.tower, source, output, precision="int8", feeds=pictures, target=CPU)
    ran = executed(output)
    assert (ran["Conv"], ran["QLinearConv"]) == (1, 1)
    assert least_cosine(on_onnxruntime(source, pictures[0]), on_onnxruntime(output, pictures[0])) > 0.999


def test_a_product_without_bias_runs_in_integers(tmp_path, graphs, decoder, answer):
    output = tmp_path / "int8.onnx"
    quantize(graphs.decoder, decoder, output, precision="int8", feeds=[answer], target=CPU)
    ran = executed(output)
    assert ran["MatMulIntegerToFloat"] == 2
    assert ran["QGemm"] == 4
    assert not {"Gemm", "MatMul"} & ran.keys()


def small_graph(path, nodes, constants, inputs, outputs, opset=23):
    """Write a graph of a few nodes; ``inputs`` and ``outputs`` are shapes by name."""
    infos = [
        [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
        for values in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    body = onnx.helper.make_graph(
        [onnx.helper.make_node(*node[:3], **node[3]) for node in nodes], "small", *infos, tensors
    )
    onnx.save(onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def test_a_sum_that_shares_its_input_with_a_product_reads_it_in_float(tmp_path, graphs):
    random = np.random.default_rng(9)
    source = small_graph(
        tmp_path / "float.onnx",
        [
            ("Relu", ["x"], ["positive"], {"name": "relu"}),
            ("MatMul", ["positive", "w"], ["product"], {"name": "product"}),
            ("Add", ["product", "positive"], ["y"], {"name": "sum"}),
        ],
        {"w": random.normal(0, 0.2, (32, 32))},
        {"x": [1, 5, 32]},
        {"y": [1, 5, 32]},
        opset=20,
    )
    feeds = [{"x": random.normal(0, 1, (1, 5, 32)).astype(np.float32)} for _ in range(8)]
    for target in (CPU, JETSON):
        output = tmp_path / "int8.onnx"
        quantize(graphs.tower, source, output, precision="int8", feeds=feeds, target=target)
        graph, _, _ = loaded(output)
        assert _node(graph, "sum").input[1] == "positive"
        assert "Identity" not in kinds(graph)
        assert least_cosine(on_onnxruntime(source, feeds[0]), on_onnxruntime(output, feeds[0])) > 0.999


@pytest.mark.parametrize("bias", [(32,), (1, 32), (1, 1, 32)], ids=str)
def test_a_bias_may_have_leading_ones(tmp_path, graphs, bias):
    random = np.random.default_rng(10)
    source = small_graph(
        tmp_path / "float.onnx",
        [
            ("MatMul", ["x", "w"], ["product"], {"name": "product"}),
            ("Add", ["b", "product"], ["y"], {"name": "sum"}),
        ],
        {"w": random.normal(0, 0.2, (64, 32)), "b": random.normal(0, 1, bias)},
        {"x": [1, "length", 64]},
        {"y": [1, "length", 32]},
    )
    feeds = [{"x": random.normal(0, 1, (1, 5, 64)).astype(np.float32)} for _ in range(8)]
    output = tmp_path / "int8.onnx"
    assert quantize(graphs.tower, source, output, precision="int8", feeds=feeds, target=CPU).warnings == ()
    assert executed(output)["QGemm"] == 1
    assert least_cosine(on_onnxruntime(source, feeds[0]), on_onnxruntime(output, feeds[0])) > 0.999


def test_several_sizes_may_vary(tmp_path, graphs):
    random = np.random.default_rng(12)
    source = small_graph(
        tmp_path / "float.onnx",
        [
            ("MatMul", ["x", "w"], ["product"], {"name": "product"}),
            ("Add", ["product", "b"], ["y"], {"name": "sum"}),
        ],
        {"w": random.normal(0, 0.2, (64, 32)), "b": random.normal(0, 1, 32)},
        {"x": ["batch", "length", 64]},
        {"y": ["batch", "length", 32]},
    )
    feeds = [{"x": random.normal(0, 1, (2, 5, 64)).astype(np.float32)} for _ in range(8)]
    output = tmp_path / "int8.onnx"
    assert quantize(graphs.tower, source, output, precision="int8", feeds=feeds, target=CPU).warnings == ()
    assert executed(output)["QGemm"] == 1
    other = {"x": random.normal(0, 1, (3, 7, 64)).astype(np.float32)}
    assert least_cosine(on_onnxruntime(source, other), on_onnxruntime(output, other)) > 0.999


def test_a_product_whose_shape_is_not_known_stays_in_float_and_is_told(tmp_path, graphs):
    random = np.random.default_rng(11)
    source = small_graph(
        tmp_path / "float.onnx",
        [
            ("Squeeze", ["x"], ["again"], {"name": "again"}),
            ("MatMul", ["again", "w"], ["product"], {"name": "varying"}),
            ("Add", ["product", "b"], ["sum"], {"name": "sum"}),
            ("MatMul", ["sum", "v"], ["y"], {"name": "plain"}),
        ],
        {"w": random.normal(0, 0.2, (64, 32)), "b": random.normal(0, 1, 32), "v": random.normal(0, 1, (32, 8))},
        {"x": ["tiles", "length", 64]},
        {"y": ["tiles", "length", 8]},
    )
    feeds = [{"x": random.normal(0, 1, (2, 5, 64)).astype(np.float32)} for _ in range(8)]
    made = quantize(graphs.tower, source, tmp_path / "int8.onnx", precision="int8", feeds=feeds, target=CPU)
    assert made.warnings == ("`varying` stays in float32: the shape of its output is not known",)
    ran = executed(tmp_path / "int8.onnx")
    assert ran["MatMulIntegerToFloat"] == 1


def test_signed_activations_are_refused_where_onnxruntime_cannot_open_them(tmp_path, graphs, tower, pictures):
    with pytest.raises(PlanError, match="signed activations need operator set 20 or lower, the graph has 23"):
        quantize(graphs.tower, tower, tmp_path / "int8.onnx", precision="int8", feeds=pictures, target=JETSON)


def test_tensorrt_gets_symmetric_signed_inputs_and_nothing_else(tmp_path, graphs, old_tower, pictures):
    output = tmp_path / "int8.onnx"
    quantize(graphs.tower, old_tower, output, precision="int8", feeds=pictures, target=JETSON)
    graph, made_by, constants = loaded(output)
    marks = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert marks
    for node in marks:
        assert constants[node.input[2]].dtype == np.int8
        assert not constants[node.input[2]].any()
        assert (constants[node.input[1]] > 0).all()
    assert {(info.domain, info.version) for info in onnx.load(output).opset_import} == {("", 20)}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    own = [node for node in products if node.name in ("scores", "attention")]
    assert not [name for node in own for name in node.input if _kind_of(made_by, name) == "DequantizeLinear"]
    assert len(products) == 6 + len(own)
    for node in products:
        if node in own:
            continue
        source, weight = (made_by[name] for name in node.input)
        assert constants[source.input[1]].ndim == 0
        assert weight.op_type == "DequantizeLinear"
        assert constants[weight.input[1]].shape == (constants[weight.input[0]].shape[1],)
    assert all(node.input[1] in constants for node in graph.node if node.name.endswith("_bias"))
    assert least_cosine(on_onnxruntime(old_tower, pictures[0]), on_onnxruntime(output, pictures[0])) > 0.999


@pytest.mark.parametrize("method", ["percentile", pytest.param("entropy", marks=pytest.mark.slow)])
def test_other_ways_to_take_ranges_are_near_too(tmp_path, graphs, tower, pictures, method):
    output = tmp_path / "int8.onnx"
    quantize(graphs.tower, tower, output, precision="int8", feeds=pictures, method=method, target=CPU)
    assert least_cosine(on_onnxruntime(tower, pictures[0]), on_onnxruntime(output, pictures[0])) > 0.99


def test_a_sample_ten_times_as_strong_spoils_none_of_the_others(tmp_path, graphs, tower, pictures):
    outlier = {"pixels": pictures[0]["pixels"] * 10}
    output = tmp_path / "int8.onnx"
    quantize(graphs.tower, tower, output, precision="int8", feeds=[*pictures, outlier], target=CPU)
    for feeds in (*pictures[1:4], outlier):
        assert least_cosine(on_onnxruntime(tower, feeds), on_onnxruntime(output, feeds)) > 0.99


def test_one_sample_is_enough_to_get_finite_outputs(tmp_path, graphs, tower, pictures):
    output = tmp_path / "int8.onnx"
    quantize(graphs.tower, tower, output, precision="int8", feeds=pictures[:1], target=CPU)
    for feeds in pictures:
        assert least_cosine(on_onnxruntime(tower, feeds), on_onnxruntime(output, feeds)) > 0.95


@pytest.mark.parametrize("target", [CPU, JETSON], ids=["uint8", "int8"])
def test_values_that_never_vary_get_a_scale_above_zero(tmp_path, graphs, old_tower, pictures, target):
    black = [{"pixels": np.zeros_like(pictures[0]["pixels"])}]
    output = tmp_path / "int8.onnx"
    quantize(graphs.tower, old_tower, output, precision="int8", feeds=black, target=target)
    _, _, constants = loaded(output)
    scales = [tensor for name, tensor in constants.items() if tensor.dtype.kind == "f" and "scale" in name]
    assert scales and all((scale > 0).all() for scale in scales)
    assert all(np.isfinite(tensor).all() for tensor in on_onnxruntime(output, pictures[0]))


def test_static_int8_without_data_is_refused(tmp_path, graphs, tower):
    with pytest.raises(InputError, match="calibration data, and there is none") as caught:
        quantize(graphs.tower, tower, tmp_path / "int8.onnx", precision="int8", target=CPU)
    assert caught.value.exit_code == 3


def test_values_that_overflow_inside_the_graph_are_refused_by_name(tmp_path, graphs, tower, pictures):
    pictures[5]["pixels"][:] = 3e38
    with pytest.raises(InputError, match=r"the values of `.*` are not finite on the calibration data"):
        quantize(graphs.tower, tower, tmp_path / "int8.onnx", precision="int8", feeds=pictures, target=CPU)


def test_an_unknown_method_is_refused(tmp_path, graphs, tower, pictures):
    with pytest.raises(PlanError, match="`maximum` is no calibration method"):
        quantize(
            graphs.tower, tower, tmp_path / "int8.onnx", precision="int8", feeds=pictures, method="maximum", target=CPU
        )


def test_no_more_than_one_feed_is_held_at_a_time(tmp_path, graphs, tower, pictures):
    held = []

    class Lazy(list):
        def __getitem__(self, index):
            held.append(index)
            return super().__getitem__(index)

        def __iter__(self):
            raise AssertionError("all feeds at once")

    for method in ("minmax", "percentile"):
        held.clear()
        feeds = Lazy(pictures)
        quantize(graphs.tower, tower, tmp_path / "int8.onnx", precision="int8", feeds=feeds, method=method, target=CPU)
        assert held == list(range(16))


# Weights alone


@pytest.mark.parametrize("run", ENGINES)
@pytest.mark.parametrize("precision, bound", [("int8-weights", 0.9995), ("int4-weights", 0.98)])
@BOTH_SPELLINGS
def test_a_decoder_with_small_weights_is_near_the_float_one(
    tmp_path, graphs, decoder, answer, precision, bound, target, run
):
    output = tmp_path / "small.onnx"
    made = quantize(graphs.decoder, decoder, output, precision=precision, target=target)
    assert made.graph.precision == precision
    assert made.warnings == ()
    assert least_cosine(on_onnxruntime(decoder, answer), run(output, answer)) > bound


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
@BOTH_SPELLINGS
def test_onnxruntime_multiplies_with_small_weights(tmp_path, graphs, decoder, precision, target):
    output = tmp_path / "small.onnx"
    quantize(graphs.decoder, decoder, output, precision=precision, target=target)
    ran = executed(output)
    assert ran["MatMulNBits"] == 6
    assert not {"Gemm", "MatMul", "DequantizeLinear"} & ran.keys()


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_both_spellings_compute_the_same(tmp_path, graphs, decoder, answer, precision):
    answers = []
    for target in (CPU, STANDARD):
        output = tmp_path / f"{target.weights}.onnx"
        quantize(graphs.decoder, decoder, output, precision=precision, target=target)
        answers.append(on_onnxruntime(output, answer))
    for nbits, blocks in zip(*answers, strict=True):
        np.testing.assert_array_equal(nbits, blocks)


def test_the_standard_spelling_has_no_operator_of_onnxruntime(tmp_path, graphs, decoder):
    output = tmp_path / "small.onnx"
    quantize(graphs.decoder, decoder, output, precision="int4-weights", target=STANDARD)
    assert [opset.domain for opset in onnx.load(output).opset_import] == [""]
    onnx.checker.check_model(output, full_check=True)


@BOTH_SPELLINGS
def test_four_bit_weights_leave_eight_to_the_logits(tmp_path, graphs, decoder, target):
    output = tmp_path / "small.onnx"
    quantize(graphs.decoder, decoder, output, precision="int4-weights", target=target)
    names = [tensor.name for tensor in onnx.load(output).graph.initializer]
    assert [name for name in names if name.endswith("int8")] == [
        "logits_weight_" + ("uint8", "int8")[target is STANDARD]
    ]
    assert len([name for name in names if name.endswith("int4")]) == 5


def test_a_large_embedding_table_is_looked_up_in_eight_bits(tmp_path, graphs, decoder, answer, monkeypatch):
    monkeypatch.setattr(weight_only, "SMALLEST_TABLE", 96 * 64 * 4)
    output = tmp_path / "small.onnx"
    quantize(graphs.decoder, decoder, output, precision="int8-weights", target=CPU)
    graph, _, constants = loaded(output)
    tables = {node.name: constants[node.input[0]] for node in graph.node if node.op_type == "Gather"}
    assert (tables["words_codes"].dtype, tables["words_steps"].shape) == (np.int8, (96, 1))
    assert tables["places"].dtype == np.float32
    assert least_cosine(on_onnxruntime(decoder, answer), on_openvino(output, answer)) > 0.999


def test_rows_of_zeros_in_a_table_stay_zeros():
    import onnx_ir

    from mmedge.export.spelling import initializer

    table = np.zeros((3, 4), np.float32)
    graph = onnx_ir.Graph([], [], nodes=[], opset_imports={"": 23})
    rows = onnx_ir.val("rows", onnx_ir.DataType.INT64, [1])
    node = onnx_ir.node("Gather", [initializer(graph, onnx_ir.tensor(table, name="table")), rows], name="words")
    graph.append(node)
    weight_only._quantize_lookup(graph, node)
    assert not graph.initializers["words_table_int8"].const_value.numpy().any()


@pytest.mark.parametrize("bits, most", [(8, 127), (4, 7)])
def test_blocks_are_quantized_to_the_nearest_value(bits, most):
    weights = np.random.default_rng(6).normal(0, 1, (64, 5)).astype(np.float32)
    blocks = weight_only.quantize_blocks(weights, bits, 32)
    values, scales = blocks.values(), blocks.scales.T
    assert (values.shape, scales.shape) == ((64, 5), (2, 5))
    again = values.astype(np.float32) * scales.repeat(32, axis=0)
    assert (np.abs(again - weights) <= np.abs(scales).repeat(32, axis=0) * 1.01).all()
    assert np.abs(values.astype(int)).max() >= most


@pytest.mark.parametrize("inputs, block", [(256, 128), (64, 64), (96, 32), (48, 16), (40, None)])
def test_the_block_divides_the_inputs(tmp_path, graphs, inputs, block):
    source = small_graph(
        tmp_path / "float.onnx",
        [("MatMul", ["x", "w"], ["y"], {"name": "product"})],
        {"w": np.random.default_rng(7).normal(0, 1, (inputs, 32))},
        {"x": [1, inputs]},
        {"y": [1, 32]},
    )
    made = quantize(graphs.tower, source, tmp_path / "small.onnx", precision="int8-weights", target=STANDARD)
    graph, _, _ = loaded(tmp_path / "small.onnx")
    sizes = [attribute.i for node in graph.node for attribute in node.attribute if attribute.name == "block_size"]
    assert sizes == ([block] if block else [])
    assert made.warnings == (() if block else ("`product` stays in float32: its 40 inputs are no multiple of 16",))


@pytest.mark.parametrize("precision, kernel", [("int8-weights", "MatMulNBits"), ("int8", "QGemm")])
def test_a_linear_layer_on_rows_is_quantized_too(tmp_path, graphs, precision, kernel):
    random = np.random.default_rng(8)
    source = small_graph(
        tmp_path / "float.onnx",
        [("Gemm", ["x", "w", "b"], ["y"], {"name": "layer", "transB": 1})],
        {"w": random.normal(0, 1, (32, 64)), "b": random.normal(0, 1, 32)},
        {"x": [3, 64]},
        {"y": [3, 32]},
    )
    feeds = [{"x": random.normal(0, 1, (3, 64)).astype(np.float32)} for _ in range(8)]
    output = tmp_path / "small.onnx"
    quantize(graphs.tower, source, output, precision=precision, feeds=feeds, target=CPU)
    assert executed(output)[kernel] == 1
    assert least_cosine(on_onnxruntime(source, feeds[0]), on_onnxruntime(output, feeds[0])) > 0.999


def test_blocks_are_refused_where_the_target_reads_no_blocks(tmp_path, graphs, decoder):
    with pytest.raises(PlanError, match="`int4-weights` needs ONNX operator set 21, here it is 20"):
        quantize(graphs.decoder, decoder, tmp_path / "small.onnx", precision="int4-weights", target=OLD)


# Float16


@pytest.mark.parametrize("run", ENGINES)
def test_float16_is_near_float32_and_keeps_its_edges(tmp_path, graphs, tower, pictures, run):
    output = tmp_path / "half.onnx"
    quantize(graphs.tower, tower, output, precision="float16", feeds=pictures, target=CPU)
    got = run(output, pictures[0])
    assert all(tensor.dtype == np.float32 for tensor in got)
    assert least_cosine(on_onnxruntime(tower, pictures[0]), got) > 0.99999


def test_float16_halves_the_weights_and_leaves_norms_alone(tmp_path, graphs, tower):
    output = tmp_path / "half.onnx"
    quantize(graphs.tower, tower, output, precision="float16", target=CPU)
    graph, _, constants = loaded(output)
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    assert {constants[name].dtype.name for node in norms for name in node.input[1:]} == {"float32"}
    products = [node for node in graph.node if node.op_type == "MatMul"]
    assert {constants[node.input[1]].dtype.name for node in products} == {"float16"}
    assert output.with_suffix(".onnx.data").stat().st_size < 0.55 * tower.with_suffix(".onnx.data").stat().st_size


def test_float16_of_a_decoder_runs_with_its_cache(tmp_path, graphs, decoder, answer):
    output = tmp_path / "half.onnx"
    quantize(graphs.decoder, decoder, output, precision="float16", feeds=[answer], target=CPU)
    assert least_cosine(on_onnxruntime(decoder, answer), on_onnxruntime(output, answer)) > 0.9999


def test_values_too_large_for_float16_are_computed_in_float32(tmp_path, graphs, tower, pictures):
    model = onnx.load(tower)
    weights = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(100_000), weights.name))
    onnx.save(model, tmp_path / "strong.onnx")
    output = tmp_path / "half.onnx"
    quantize(graphs.tower, tmp_path / "strong.onnx", output, precision="float16", target=CPU)
    assert not all(np.isfinite(tensor).all() for tensor in on_onnxruntime(output, pictures[0]))
    quantize(graphs.tower, tmp_path / "strong.onnx", output, precision="float16", feeds=pictures, target=CPU)
    want = on_onnxruntime(tmp_path / "strong.onnx", pictures[0])
    assert least_cosine(want, on_onnxruntime(output, pictures[0])) > 0.9999


# For an engine that computes in the types of the graph


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_typed_engine_gets_float16_at_the_edges_that_are_named(tmp_path, graphs, old_tower, pictures, precision):
    output = tmp_path / "typed.onnx"
    made = quantize(
        graphs.tower, old_tower, output, precision=precision, feeds=pictures, target=JETSON, edges=("key", "value")
    )
    assert [port.dtype for port in (*made.graph.inputs, *made.graph.outputs)] == ["float32", "float16", "float16"]
    got = on_onnxruntime(output, pictures[0])
    assert [tensor.dtype for tensor in got] == [np.float16, np.float16]
    assert least_cosine(on_onnxruntime(old_tower, pictures[0]), got) > (0.9999 if precision == "float16" else 0.99)


def test_a_typed_int8_graph_is_float16_around_its_integers(tmp_path, graphs, old_tower, pictures):
    output = tmp_path / "typed.onnx"
    quantize(graphs.tower, old_tower, output, precision="int8", feeds=pictures, target=JETSON)
    graph, _, constants = loaded(output)
    assert not [name for name, tensor in constants.items() if tensor.dtype == np.float32]
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {constants[node.input[1]].dtype.name for node in quantizers} == {"float16"}
    assert {int(constants[node.input[2]].max()) for node in quantizers if len(node.input) > 2} == {0}


def test_a_typed_engine_gets_int4_with_scales_above_zero(tmp_path, graphs, old_tower, pictures):
    output = tmp_path / "typed.onnx"
    made = quantize(graphs.tower, old_tower, output, precision="int4-weights", feeds=pictures, target=JETSON)
    graph, _, constants = loaded(output)
    nodes = [node for node in graph.node if node.op_type == "DequantizeLinear"]
    assert nodes and all((constants[node.input[1]] > 0).all() for node in nodes)
    assert {node.op_type for node in graph.node if node.domain} == set() and made.graph.precision == "int4-weights"
    assert least_cosine(on_onnxruntime(old_tower, pictures[0]), on_onnxruntime(output, pictures[0])) > 0.98


@pytest.mark.parametrize("bits", [4, 8])
def test_positive_blocks_are_as_near_as_those_of_the_library(bits):
    matrix = np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)

    def error(blocks: weight_only.Blocks) -> float:
        scales = np.repeat(blocks.scales.T, blocks.size, axis=0)
        return float(np.abs(blocks.values().astype(np.float32) * scales - matrix).max())

    ours, theirs = (make(matrix, bits, 32) for make in (weight_only.positive_blocks, weight_only.quantize_blocks))
    assert (ours.scales > 0).all() and ours.packed.shape == theirs.packed.shape
    assert error(ours) <= 1.2 * error(theirs)


def test_norms_of_a_typed_engine_are_float16_while_their_values_are_small(tmp_path, graphs, old_tower, pictures):
    output = tmp_path / "typed.onnx"
    made = quantize(graphs.tower, old_tower, output, precision="float16", feeds=pictures, target=JETSON)
    graph, _, constants = loaded(output)
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    assert norms and {constants[name].dtype.name for node in norms for name in node.input[1:]} == {"float16"}
    assert made.ranges and all(0 <= most < 8000 for most in made.ranges.values())


# What stays in float


@pytest.mark.parametrize("precision", ["int8", "int8-weights", "float16"])
def test_nodes_that_a_pattern_names_stay_in_float(tmp_path, graphs, tower, pictures, precision):
    output = tmp_path / "small.onnx"
    quantize(graphs.tower, tower, output, precision=precision, keep=("mlp_*", "qkv"), feeds=pictures, target=CPU)
    graph, _, constants = loaded(output)
    floats = {node.name for node in graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants}
    whole = {name for name in floats if constants[_node(graph, name).input[1]].dtype == np.float32}
    assert whole == {"mlp_in", "mlp_out_zero", "qkv"}


def test_a_pattern_that_matches_nothing_is_refused_with_names_like_it(tmp_path, graphs, tower, pictures):
    with pytest.raises(PlanError, match=r"`keep` pattern `mpl_in` matches no node of `tower`") as caught:
        quantize(
            graphs.tower,
            tower,
            tmp_path / "small.onnx",
            precision="int8",
            keep=("qkv", "mpl_in"),
            feeds=pictures,
            target=CPU,
        )
    assert "mlp_in" in caught.value.hint
    assert caught.value.exit_code == 2


def test_keeping_everything_is_refused(tmp_path, graphs, tower, pictures):
    with pytest.raises(PlanError, match="nothing is left to quantize"):
        quantize(
            graphs.tower, tower, tmp_path / "small.onnx", precision="int8", keep=("*",), feeds=pictures, target=CPU
        )


def test_an_unknown_precision_is_refused(tmp_path, graphs, tower):
    with pytest.raises(PlanError, match="cannot be quantized to `int2`"):
        quantize(graphs.tower, tower, tmp_path / "small.onnx", precision="int2", target=CPU)


# The files

PRECISIONS = ("int8", "int8-weights", "int4-weights", "float16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_file_is_plain(tmp_path, graphs, tower, pictures, precision):
    output = tmp_path / "made" / "tower.onnx"
    output.parent.mkdir()
    made = quantize(graphs.tower, tower, output, precision=precision, feeds=pictures, target=CPU)
    assert made.graph.precision == precision
    assert sorted(path.name for path in output.parent.iterdir()) == ["tower.onnx", "tower.onnx.data"]
    model = onnx.load(output)
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    assert (model.ir_version, opsets.pop("")) == (10, 23)
    assert opsets == ({} if precision == "float16" else {"com.microsoft": 1})
    assert not model.metadata_props
    assert not [node.name for node in model.graph.node if node.metadata_props or node.doc_string]
    assert [info.name for info in model.graph.output] == ["key", "value"]
    onnx.checker.check_model(output, full_check=True)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_graph_gives_the_same_bytes(tmp_path, graphs, tower, pictures, precision):
    outputs = [tmp_path / name / "tower.onnx" for name in "ab"]
    for output in outputs:
        output.parent.mkdir()
        quantize(graphs.tower, tower, output, precision=precision, feeds=pictures, target=CPU)
    for suffix in (".onnx", ".onnx.data"):
        first, second = (output.with_suffix(suffix).read_bytes() for output in outputs)
        assert first == second


def test_nothing_is_printed_or_logged_and_logging_stays_as_it_was(tmp_path, graphs, tower, pictures, capfd):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    for precision, method in (("int8", "minmax"), ("int8", "percentile"), ("int4-weights", ""), ("float16", "")):
        quantize(
            graphs.tower, tower, tmp_path / "x.onnx", precision=precision, method=method, feeds=pictures, target=CPU
        )
    assert capfd.readouterr() == ("", "")
    assert (root.handlers, root.level) == before


def test_the_temporary_folder_goes_when_quantizing_fails(tmp_path, graphs, tower, pictures):
    output = tmp_path / "made" / "tower.onnx"
    output.parent.mkdir()
    pictures[3]["pixels"][:] = 3e38
    with pytest.raises(InputError):
        quantize(graphs.tower, tower, output, precision="int8", feeds=pictures, target=CPU)
    assert list(output.parent.iterdir()) == []


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_order_of_sets(tmp_path, tower):
    script = f"""
import numpy as np
from pathlib import Path
from mmedge.core import find
from mmedge.core.manifest import Graph
from mmedge.export.quantize import quantize
feeds = [{{"pixels": np.random.default_rng(0).normal(0, 1, (1, 3, 32, 32)).astype(np.float32)}}]
for precision in {PRECISIONS}:
    for method in ("minmax", "percentile"):
        output = Path("OUTPUT") / f"{{precision}}-{{method}}.onnx"
        graph = Graph("tower", "graphs/tower.onnx", (), (), "float32")
        quantize(graph, Path({str(tower)!r}), output, precision=precision, method=method, feeds=feeds,
            target=find.target("cpu"))
"""
    folders = [tmp_path / "1", tmp_path / "2"]
    for folder in folders:
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": folder.name}
        subprocess.run([sys.executable, "-c", script.replace("OUTPUT", str(folder))], env=environment, check=True)
    names = sorted(path.name for path in folders[0].iterdir())
    assert len(names) == 16
    assert [name for name in names if (folders[0] / name).read_bytes() != (folders[1] / name).read_bytes()] == []


def _kind_of(made_by: dict[str, onnx.NodeProto], name: str) -> str:
    return made_by[name].op_type if name in made_by else ""


def _node(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    return next(node for node in graph.node if node.name == name)
