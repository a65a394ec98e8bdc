"""Engines tell the time of each node, under the names of the ONNX graph, while they compute what they always do."""

import json

import numpy as np
import pytest

from mmedge.backends._onnxruntime_profile import original_names, runs_of
from mmedge.backends.onnxruntime import BACKEND as ONNX_RUNTIME
from mmedge.core.backend import Profiling
from mmedge.core.onnx_graph import Node, OnnxGraph, Tensor, read_graph
from mmedge.errors import BackendError

TOKENS = [3, 1, 4]


@pytest.fixture
def profiled(backend, sources, decoder_graph):
    """The decoder, counting."""
    session = backend.open_profiled(decoder_graph, sources["decoder"], 1)
    yield session
    session.close()


def read(decoder, position, *tokens):
    positions = np.arange(position, position + len(tokens))
    return decoder.run({"input_ids": np.array([tokens]), "position_ids": positions[None]})["logits"]


def node(op, inputs, output, name=""):
    return Node(name or f"{op}:{output}", op, "", tuple(inputs.split()), (output,), {})


def graph(*nodes):
    return OnnxGraph(nodes, {}, ("x",), nodes[-1].outputs)


def test_both_engines_can_be_asked(backend):
    assert isinstance(backend, Profiling)


def test_counting_changes_no_answer(profiled, tiny, held):
    profiled.reset(held())
    np.testing.assert_allclose(read(profiled, 0, *TOKENS), tiny.logits(TOKENS, held()), rtol=0, atol=2e-6)


def test_every_run_is_told_apart(profiled, held):
    profiled.reset(held())
    for position, token in enumerate(TOKENS):
        read(profiled, position, token)
    runs = profiled.node_times()
    assert len(runs) == len(TOKENS)
    assert all(sum(node.us for node in run) > 0 for run in runs)


def test_every_product_is_found_under_its_onnx_name(profiled, sources, held):
    profiled.reset(held())
    read(profiled, 0, *TOKENS)
    (run,) = profiled.node_times()
    known = {each.name for each in read_graph(sources["decoder"].read_bytes()).nodes}
    named = {name for each in run for name in each.onnx_names}
    assert named <= known
    products = {each.name for each in read_graph(sources["decoder"].read_bytes()).nodes if each.op == "MatMul"}
    assert products <= named
    assert not [each.node for each in run if not each.onnx_names]


def test_what_a_trace_was_written_to_goes_with_the_session(sources, decoder_graph, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    session = ONNX_RUNTIME.open_profiled(decoder_graph, sources["decoder"])
    assert list(tmp_path.iterdir())
    session.close()
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_behind_when_a_graph_is_refused(decoder_graph, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(BackendError, match="cannot open"):
        ONNX_RUNTIME.open_profiled(decoder_graph, tmp_path / "broken.onnx")
    assert not list((tmp_path / "temporary").iterdir())


def test_a_plain_session_tells_the_shape_of_every_tensor(sources, tower_graph):
    session = ONNX_RUNTIME.open_plain(tower_graph, sources["tower"])
    session.run({"pixels": np.zeros((1, 3, 8, 7), np.float32), "wanted": np.array([[1, 2]])})
    (made,) = session.shapes()
    session.close()
    written = {each.name for each in read_graph(sources["tower"].read_bytes()).nodes}
    assert written <= made.keys()
    assert made["features"] == (Tensor("float32", (1, 2, 4)),)


def test_a_tensor_inside_a_graph_can_be_shown(sources, tower_graph):
    inside = next(each for each in read_graph(sources["tower"].read_bytes()).nodes if each.op == "Transpose")
    session = ONNX_RUNTIME.open_showing(tower_graph, sources["tower"], inside.outputs)
    pixels = np.random.default_rng(0).random((1, 3, 8, 7), dtype=np.float32)
    shown = session.run({"pixels": pixels, "wanted": np.array([[1]])})
    np.testing.assert_allclose(shown[inside.outputs[0]], pixels.mean(1).swapaxes(1, 2), rtol=1e-5)
    assert shown.keys() == {"features", "total", inside.outputs[0]}


def test_a_fused_node_stands_for_all_between_its_inputs_and_its_outputs():
    original = graph(node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Gelu", "c", "d"), node("Neg", "d", "y"))
    executed = graph(node("FusedGemm", "x w b", "d", "FusedGemm"), node("Neg", "d", "y"))
    assert list(original_names(original, executed)) == [("MatMul:a", "Add:c", "Gelu:d"), ("Neg:y",)]


def test_a_node_in_another_layout_stands_with_the_one_that_reads_it():
    original = graph(node("Conv", "x w", "a"), node("Relu", "a", "y"))
    executed = graph(node("Conv", "x r", "tiled", "tiled conv"), node("Reorder", "tiled", "a"), node("Relu", "a", "y"))
    assert list(original_names(original, executed)) == [("Conv:a",), ("Conv:a",), ("Relu:y",)]


def test_a_node_that_is_run_under_its_own_name_belongs_to_no_other():
    original = graph(node("Norm", "x s", "a"), node("Quantize", "a z", "y"))
    executed = graph(node("Norm", "x s", "renamed", "Norm:a"), node("Quantize", "renamed z", "y"))
    assert list(original_names(original, executed)) == [("Norm:a",), ("Quantize:y",)]


def test_events_are_put_into_the_run_in_which_they_happened():
    def event(name, ts, dur, **details):
        return {"cat": "Node", "name": name, "ts": ts, "dur": dur, "ph": "X", "pid": 1, "tid": 1, "args": details}

    trace = [
        event("session_initialization", 0, 90),
        event("a_kernel_time", 101, 5, op_name="Add", output_type_shape=[{"float": [2, 3]}], node_index="0"),
        event("b_kernel_time", 107, 2, op_name="Neg"),
        event("model_run", 100, 20),
        event("a_kernel_time", 131, 4, op_name="Add"),
        event("b_kernel_time", 136, 1, op_name="Neg"),
        event("model_run", 130, 10),
    ]
    runs = list(runs_of(json.dumps(trace).encode()))
    assert [[(each.name, each.dur) for each in run] for run in runs] == [
        [("a_kernel_time", 5), ("b_kernel_time", 2)],
        [("a_kernel_time", 4), ("b_kernel_time", 1)],
    ]
