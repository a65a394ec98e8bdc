"""What TensorRT is told while an engine is built, and what it answers when it refuses."""

import logging

import msgspec
import numpy as np
import onnx
import pytest
from mmedge_doubles.install import installed
from mmedge_doubles.plan import from_bytes
from mmedge_doubles.settings import VERSIONS
from onnx import TensorProto, helper

from mmedge.backends import _tensorrt_build
from mmedge.core import find
from mmedge.core.manifest import Graph
from mmedge.core.ports import Port, Span
from mmedge.errors import BackendError, ResourceError

BACKEND = find.backend("tensorrt")
FLOATS = {"FP16", "INT8", "BF16", "FP8", "INT4", "FP4"}


@pytest.fixture(params=VERSIONS)
def double(request):
    with installed(request.param) as made:
        yield made


@pytest.fixture
def one():
    with installed("10.3") as made:
        yield made


@pytest.fixture
def folder(tmp_path):
    """Where an engine is written; what was measured lies beside it."""
    made = tmp_path / "decoder"
    made.mkdir()
    return made


def plan_of(artifact):
    return from_bytes(artifact.read_bytes())[0]


def graph_of(nodes, inputs, outputs, path, opset=17, **fields):
    """A small graph, written to ``path``."""
    ports = [
        tuple(Port(name, dtype, tuple(shape)) for name, (dtype, shape) in edges.items()) for edges in (inputs, outputs)
    ]
    values = [
        [
            helper.make_tensor_value_info(
                port.name, helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype)), list(port.shape)
            )
            for port in edges
        ]
        for edges in ports
    ]
    made = helper.make_graph(nodes, "small", *values)
    onnx.save(helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", opset)]), path)
    return Graph("small", "graphs/small.onnx", *ports, "float32", **fields)


def relu(path, shape=(1, 4), **fields):
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="only")]
    return graph_of(nodes, {"x": ("float32", shape)}, {"y": ("float32", shape)}, path, **fields)


class TestTypes:
    @pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
    def test_networks_are_strongly_typed_where_they_can_be(self, precision, double, fixed_source, folder):
        graph, source = fixed_source()
        plan = plan_of(BACKEND.compile(msgspec.structs.replace(graph, precision=precision), source, folder))
        old = double.settings.version == "8.6"
        assert plan.typed is not old
        allowed = {"float32": set(), "float16": {"FP16"}, "int8": {"FP16", "INT8"}}[precision]
        assert set(plan.flags) & FLOATS == (allowed if old else set())

    @pytest.mark.parametrize(("precision", "shorter"), [("float32", False), ("float16", True)])
    def test_float32_is_not_shortened_to_tf32(self, precision, shorter, double, tmp_path):
        graph = msgspec.structs.replace(relu(tmp_path / "small.onnx"), precision=precision)
        plan = plan_of(BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path))
        assert ("TF32" in plan.flags) is shorter


class TestOptions:
    def test_those_of_the_target_reach_the_builder(self, double, tmp_path):
        graph = relu(tmp_path / "small.onnx")
        options = {"workspace_mb": 256, "builder_level": 1, "builder_mb": 4096}
        plan = plan_of(BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path, options))
        assert (plan.pools, plan.level) == ({"WORKSPACE": 256 << 20}, 1)

    def test_without_any_the_builder_keeps_its_own(self, one, tmp_path):
        graph = relu(tmp_path / "small.onnx")
        plan = plan_of(BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path))
        assert (plan.pools, plan.level) == ({}, 3)


class TestProfiles:
    def test_every_input_that_varies_has_a_range_in_every_profile(self, double, fixed_source, folder):
        graph, source = fixed_source()
        step, prompt = plan_of(BACKEND.compile(graph, source, folder)).profiles
        assert step["input_ids"] == [[1, 1]] * 3
        assert prompt["position_ids"] == [[1, 1], [1, 4], [1, 12]]
        assert prompt["attention_bias"] == [[1, 1, 1, 16], [1, 1, 4, 16], [1, 1, 12, 16]]
        assert step["cross.1.value"] == [[1, 2, 1, 8], [1, 2, 5, 8], [1, 2, 9, 8]]
        assert not {"past.0.key", "cache_position"} & {*step, *prompt}

    @pytest.mark.parametrize("profiles", [(), ({"height": Span(1, 2, 3)},)])
    def test_a_size_without_range_is_refused(self, profiles, double, tmp_path):
        graph = relu(tmp_path / "small.onnx", (1, "width"), profiles=profiles)
        with pytest.raises(BackendError, match=r"no range is given for a size of `x` \[1, width\]") as caught:
            BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)
        assert "export" in caught.value.hint

    def test_a_range_that_is_upside_down_is_refused(self, double, tmp_path):
        graph = relu(tmp_path / "small.onnx", (1, "width"), profiles=({"width": Span(4, 2, 8)},))
        with pytest.raises(BackendError, match="tensorrt cannot build `small`: Shape provided for opt is inconsistent"):
            BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)

    def test_a_graph_whose_sizes_are_fixed_needs_none(self, double, tmp_path):
        graph = relu(tmp_path / "small.onnx", profiles=({"unused": Span(1, 2, 3)},))
        artifact = BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)
        session = BACKEND.open(graph, artifact)
        x = np.float32([[-1, 2, -3, 4]])
        np.testing.assert_array_equal(session.run({"x": x})["y"], np.maximum(x, 0))
        session.close()


class TestRefusals:
    @pytest.mark.parametrize("number", VERSIONS)
    def test_an_operator_that_the_version_lacks_is_told_with_its_node(self, number, tmp_path):
        shape = ("float32", (1, 2, 4, 8))
        nodes = [helper.make_node("Attention", ["q", "k", "v"], ["y"], name="/layers.3/attention")]
        graph = graph_of(nodes, {name: shape for name in "qkv"}, {"y": shape}, tmp_path / "small.onnx", opset=23)
        with installed(number):
            if number in ("10.16", "11.1"):
                assert BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path).name == "small.plan"
                return
            with pytest.raises(BackendError, match="tensorrt cannot read `small`") as caught:
                BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)
        message = caught.value.message
        assert ("node 0:" if number == "8.6" else "Attention `/layers.3/attention`:") in message
        assert "No importer registered for op: Attention (ModelImporter.cpp:1037)" in message

    def test_every_error_of_the_parser_is_told(self, one, tmp_path):
        nodes = [helper.make_node(kind, ["x"], [name], name=name) for kind, name in (("Foo", "a"), ("Bar", "b"))]
        edges = {"x": ("float32", (1,))}, {name: ("float32", (1,)) for name in "ab"}
        graph = graph_of(nodes, *edges, tmp_path / "small.onnx")
        with pytest.raises(BackendError, match=r"Foo `a`: .*Bar `b`: "):
            BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)

    @pytest.mark.parametrize("content", [b"", b"no ONNX"])
    def test_a_file_that_is_no_model(self, content, double, tmp_path):
        graph = relu(tmp_path / "small.onnx")
        (tmp_path / "small.onnx").write_bytes(content)
        with pytest.raises(BackendError, match="`small`"):
            BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)

    def test_an_input_that_the_bundle_does_not_know(self, double, tmp_path):
        graph = msgspec.structs.replace(relu(tmp_path / "small.onnx"), inputs=(Port("z", "float32", (1, 4)),))
        with pytest.raises(BackendError, match="the file of `small` has no input `z`"):
            BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)

    def test_an_input_whose_values_become_sizes(self, double, tmp_path):
        nodes = [
            helper.make_node("Identity", ["sizes"], ["same"]),
            helper.make_node("Reshape", ["x", "same"], ["y"]),
        ]
        inputs = {"x": ("float32", (4,)), "sizes": ("int64", (2,))}
        graph = graph_of(nodes, inputs, {"y": ("float32", (2, 2))}, tmp_path / "small.onnx")
        with pytest.raises(BackendError, match="tensorrt cannot build `small`: the values of `sizes` become sizes"):
            BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)

    def test_an_output_whose_size_depends_on_values(self, double, tmp_path):
        nodes = [helper.make_node("NonZero", ["x"], ["y"])]
        graph = graph_of(nodes, {"x": ("float32", (4,))}, {"y": ("int64", (1, "found"))}, tmp_path / "small.onnx")
        artifact = BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)
        with pytest.raises(BackendError, match="the size of `y` of `small` depends on the values of its inputs"):
            BACKEND.open(graph, artifact)
        assert set(double.cudart.live().values()) == {0}

    @pytest.mark.parametrize(
        ("said", "kind", "told"),
        [
            ("Could not find any implementation for node {ForeignNode[/head/MatMul]}.", BackendError, "ForeignNode"),
            (
                "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
                ResourceError,
                "memory",
            ),
        ],
    )
    def test_what_the_builder_said_before_it_gave_up(self, said, kind, told, tmp_path):
        graph = relu(tmp_path / "small.onnx")
        with installed("10.3", build_error=said):
            with pytest.raises(kind, match=f"tensorrt cannot build `small`: .*{told}") as caught:
                BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)
            assert "\n" not in caught.value.message
        assert not list(tmp_path.glob("*.plan"))

    def test_errors_of_an_earlier_build_are_not_told_again(self, one, tmp_path):
        path = tmp_path / "small.onnx"
        nodes = [helper.make_node("Foo", ["x"], ["y"], name="a")]
        refused = graph_of(nodes, {"x": ("float32", (1,))}, {"y": ("float32", (1,))}, path)
        with pytest.raises(BackendError):
            BACKEND.compile(refused, path, tmp_path)
        graph = relu(path, (1, "width"), profiles=({"width": Span(4, 2, 8)},))
        with pytest.raises(BackendError) as caught:
            BACKEND.compile(graph, path, tmp_path)
        assert "Foo" not in caught.value.message


class TestTimings:
    def timings(self, folder):
        return [path.read_text() for path in folder.glob("*.timings")]

    def test_what_was_measured_is_kept_beside_the_folder_and_used_again(self, double, tmp_path, folder):
        graph = relu(tmp_path / "small.onnx")
        for count in ("1", "2"):
            BACKEND.compile(graph, tmp_path / "small.onnx", folder)
            assert [text.split()[-1] for text in self.timings(tmp_path)] == [count]
        assert [path.name for path in folder.iterdir()] == ["small.plan"]

    @pytest.mark.parametrize("spoiled", [b"\xff\xff", b"10.3 9.9 7", b""])
    def test_those_of_another_device_and_damaged_ones_are_replaced(self, spoiled, one, tmp_path, folder):
        (tmp_path / "tensorrt-10.3.0.timings").write_bytes(spoiled)
        BACKEND.compile(relu(tmp_path / "small.onnx"), tmp_path / "small.onnx", folder)
        assert self.timings(tmp_path) == ["10.3 8.7 1"]

    def test_a_build_goes_on_where_they_cannot_be_kept(self, one, tmp_path, folder, caplog):
        (tmp_path / "tensorrt-10.3.0.timings").mkdir()
        with caplog.at_level(logging.WARNING):
            assert BACKEND.compile(relu(tmp_path / "small.onnx"), tmp_path / "small.onnx", folder).is_file()
        assert "cannot be kept" in caplog.text
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["small.onnx"]

    @pytest.mark.parametrize("error", [RuntimeError("bad_alloc"), OSError(28, "No space left on device"), None])
    def test_a_build_that_is_done_is_kept_where_they_cannot_be_told(
        self, error, one, tmp_path, folder, caplog, monkeypatch
    ):
        def serialize(timings):
            assert [path.name for path in folder.iterdir()] == ["small.plan"]
            if error:
                raise error

        monkeypatch.setattr(one.tensorrt.ITimingCache, "serialize", serialize)
        artifact = BACKEND.compile(relu(tmp_path / "small.onnx"), tmp_path / "small.onnx", folder)
        assert plan_of(artifact).version == "10.3" and self.timings(tmp_path) == []
        assert "cannot be kept" in caplog.text and (not error or error.args[-1] in caplog.text)


STEP, START, END = "step_complete", "phase_start", "phase_finish"
ODD = {
    "two of one name": [(START, "a", None, 2), (START, "a", None, 2), (END, "a"), (STEP, "a", 0), (END, "a")],
    "an end without a start": [(END, "a"), (START, "b", "a", 1), (END, "b")],
    "a step without a start": [(STEP, "a", 3), (START, "a", None, 4), (END, "a")],
    "a phase in itself": [(START, "a", "a", 2), (STEP, "a", 0), (END, "a")],
    "two in each other": [(START, "a", "b", 2), (START, "b", "a", 2), (STEP, "a", 0), (END, "b"), (END, "a")],
    "no steps": [(START, "a", None, 0), (STEP, "a", 0), (END, "a")],
}


class TestProgress:
    @pytest.mark.parametrize("name", ODD)
    def test_phases_that_nobody_expects_raise_nothing(self, name, one):
        told = []
        monitor = _tensorrt_build._monitor(one.tensorrt, lambda phase, part: told.append(part))
        for method, *arguments in ODD[name]:
            getattr(monitor, method)(*arguments)
        assert told and all(0 <= part <= 1 for part in told)

    def test_the_part_that_is_done_grows_to_the_whole(self, double, tmp_path, monkeypatch):
        told = []
        monkeypatch.setattr(BACKEND, "progress", lambda phase, part: told.append((phase, part)))
        BACKEND.compile(relu(tmp_path / "small.onnx"), tmp_path / "small.onnx", tmp_path)
        if double.settings.version == "8.6":
            assert told == []
            return
        parts = [part for _, part in told]
        assert parts[:4] == [0.125, 0.25, 0.375, 0.5] and parts == sorted(parts) and parts[-1] == 1.0
        assert {phase for phase, _ in told} == {"Building Engine", "Timing graph nodes"}


def test_the_plan_is_of_this_version_and_device(double, tmp_path):
    plan = plan_of(BACKEND.compile(relu(tmp_path / "small.onnx"), tmp_path / "small.onnx", tmp_path))
    assert (plan.version, plan.compute_capability) == (double.settings.version, "8.7")


def test_types_that_numpy_does_not_know_are_refused(double, tmp_path, monkeypatch):
    """bfloat16 exists from 10 on."""
    if double.settings.version == "8.6":
        return
    from mmedge_doubles import build

    monkeypatch.setitem(build.TYPES, TensorProto.FLOAT, "BF16")
    graph = relu(tmp_path / "small.onnx")
    artifact = BACKEND.compile(graph, tmp_path / "small.onnx", tmp_path)
    with pytest.raises(BackendError, match="the engine wants `x` as BF16, which numpy does not know"):
        BACKEND.open(graph, artifact)
