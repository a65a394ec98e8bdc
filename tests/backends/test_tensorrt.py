"""TensorRT on its doubles: every version gives the numbers of ONNX Runtime, by the calls that a device would get."""

import logging
import sys
from importlib.metadata import version as version_of

import msgspec
import numpy as np
import pytest
from mmedge_doubles.install import installed
from mmedge_doubles.run import SCRATCH
from mmedge_doubles.settings import VERSIONS

from mmedge.core import find
from mmedge.core.ports import Span
from mmedge.errors import BackendError, InputError, ResourceError

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
BACKEND = find.backend("tensorrt")
KINDS = [("10.3", "ScatterND"), ("10.16", "TensorScatter"), ("11.1", "TensorScatter")]


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def double(version):
    """TensorRT of every version."""
    with installed(version) as made:
        yield made


@pytest.fixture
def one():
    """TensorRT 10.3 alone, where the version makes no difference."""
    with installed("10.3") as made:
        yield made


@pytest.fixture
def built(fixed_source, tmp_path):
    """``built()``: the decoder, its engine, and the same on ONNX Runtime."""

    def build(dtype="float32", kind="ScatterND", options=None):
        if kind == "TensorScatter" and version_of("onnxruntime").startswith("1.23."):
            pytest.skip("ONNX Runtime 1.23, which the double computes with, reads no operator set with TensorScatter")
        graph, source = fixed_source(dtype, kind)
        session = BACKEND.open(graph, BACKEND.compile(graph, source, tmp_path), options=options or {})
        return session, find.backend("onnxruntime").open(graph, source)

    return build


@pytest.fixture
def decoder(one, built, held):
    """A session on 10.3 that holds its inputs."""
    session, _ = built()
    session.reset(held())
    yield session
    session.close()


def step(position, *tokens):
    positions = np.arange(position, position + len(tokens))
    return {"input_ids": np.array([tokens]), "position_ids": positions[None]}


def same(got, expected):
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        np.testing.assert_array_equal(got[name], tensor)


def uploads(double, since=0):
    """Sizes of what was copied to the device."""
    return [size for kind, _, _, size in double.cudart.copies[since:] if kind == "to_device"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_prompt_and_steps_give_what_onnxruntime_gives(dtype, double, built, held):
    session, reference = built(dtype)
    for seed, source in ((0, 5), (1, 9), (2, 1)):
        for each in (session, reference):
            each.reset(held(seed, source))
        same(session.run(step(0, *TOKENS[:4])), reference.run(step(0, *TOKENS[:4])))
        for position in range(4, 10):
            feeds = step(position, TOKENS[position])
            same(session.run(feeds), reference.run(feeds))
        feeds = step(10, *TOKENS[:3])  # a prompt in the other turn
        same(session.run(feeds), reference.run(feeds))
    session.close()


def test_tokens_fed_back_give_what_onnxruntime_gives(double, built, held):
    session, reference = built()
    answers = []
    for each in (session, reference):
        each.reset(held())
        token, answer = each.run(step(0, 1, 2), ["token"])["token"], []
        for position in range(2, 14):
            answer.append(int(token[0, 0]))
            token = each.run({"input_ids": token, "position_ids": np.array([[position]])}, ["token"])["token"]
        answers.append(answer)
    assert answers[0] == answers[1]
    session.close()


def test_an_engine_that_knows_the_sizes_of_its_outputs_only_at_run_time(built, held):
    with installed("10.3", vague=True):
        session, reference = built()
        for each in (session, reference):
            each.reset(held())
        for feeds in (step(0, 1, 2), step(2, 3), step(3, 4), step(4, 5)):
            same(session.run(feeds), reference.run(feeds))
        session.close()


def test_the_order_of_the_profiles_does_not_matter(one, fixed_source, tmp_path, held):
    """With the prompt first, single tokens are read as prompts of one."""
    graph, source = fixed_source()
    turned = msgspec.structs.replace(graph, profiles=graph.profiles[::-1])
    session = BACKEND.open(turned, BACKEND.compile(turned, source, tmp_path))
    reference = find.backend("onnxruntime").open(graph, source)
    for each in (session, reference):
        each.reset(held())
    feeds = step(0, 1, 2)
    for position in range(2, 8):
        token = session.run(feeds)["token"]
        np.testing.assert_array_equal(token, reference.run(feeds)["token"])
        feeds = {"input_ids": token, "position_ids": np.array([[position]])}
    assert set(one.executions) == {0}
    session.close()


def test_a_tower_with_sizes_that_vary_gives_what_onnxruntime_gives(double, sources, tower_graph, tmp_path):
    spans = ({"width": Span(2, 7, 12), "count": Span(1, 2, 4)},)
    graph = msgspec.structs.replace(tower_graph, profiles=spans)
    session = BACKEND.open(graph, BACKEND.compile(graph, sources["tower"], tmp_path))
    reference = find.backend("onnxruntime").open(graph, sources["tower"])
    for width, wanted in ((7, [[6, 0]]), (12, [[1, 2, 3, 11]]), (2, [[0]])):
        pixels = np.random.default_rng(width).random((1, 3, 8, width), dtype=np.float32)
        feeds = {"pixels": pixels, "wanted": np.array(wanted)}
        same(session.run(feeds), reference.run(feeds))
    session.close()


def test_nothing_of_a_closed_session_stays_on_the_device(double, built, held):
    session, _ = built()
    session.reset(held())
    for position in range(8):
        session.run(step(position, 1))
    assert double.cudart.live()["executables"] == 2
    session.close()
    session.close()
    assert set(double.cudart.live().values()) == {0}
    assert double.cudart.used == 0
    for use in (lambda: session.run(step(0, 1)), session.reset):
        with pytest.raises(BackendError, match="the session of `decoder` is closed"):
            use()


def test_contexts_share_one_block_for_what_lies_between(double, built, held):
    session, _ = built()
    session.reset(held())
    for feeds in (step(0, 1, 2), step(2, 1), step(3, 1), step(4, 1, 2)):
        session.run(feeds)
    assert [block.size for block in double.cudart.blocks.values()].count(SCRATCH) == 1
    session.close()


def test_two_sessions_do_not_disturb_each_other(one, built, held, tiny):
    (first, _), (second, _) = built(), built()
    first.reset(held(1))
    second.reset(held(2))
    for position, token in enumerate(TOKENS[:6]):
        got = first.run(step(position, token))["logits"], second.run(step(position, token))["logits"]
        for seed, logits in enumerate(got, 1):
            expected = tiny.logits(TOKENS[: position + 1], held(seed))
            np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-6)
    first.close()
    np.testing.assert_allclose(
        second.run(step(6, 2))["logits"], tiny.logits([*TOKENS[:6], 2], held(2)), rtol=0, atol=2e-6
    )
    second.close()


class TestCopies:
    def test_the_token_fed_back_is_not_copied(self, one, decoder):
        token = decoder.run(step(0, 1, 2), ["token"])["token"]
        for position in range(2, 8):
            before = len(one.cudart.copies)
            token = decoder.run({"input_ids": token, "position_ids": np.array([[position]])}, ["token"])["token"]
            done = [(kind, size) for kind, _, _, size in one.cudart.copies[before:]]
            # position_ids, cache_position and attention_bias [1, 1, 1, 16] go there, the token comes back
            assert sorted(done) == [("to_device", 8), ("to_device", 8), ("to_device", 64), ("to_host", 8)]

    def test_another_token_is_copied_and_counts(self, one, decoder, tiny, held):
        said = int(decoder.run(step(0, 1, 2), ["token"])["token"][0, 0])
        other = (said + 1) % 20
        before = len(one.cudart.copies)
        logits = decoder.run(step(2, other), ["logits"])["logits"]
        assert sorted(uploads(one, before)) == [8, 8, 8, 64]
        np.testing.assert_allclose(logits, tiny.logits([1, 2, other], held()), rtol=0, atol=2e-6)

    def test_a_token_that_was_not_told_is_copied(self, one, decoder, tiny, held):
        said = int(decoder.run(step(0, 1, 2), ["logits"])["logits"].argmax())
        before = len(one.cudart.copies)
        decoder.run(step(2, said))
        assert sorted(uploads(one, before)) == [8, 8, 8, 64]

    def test_what_is_held_is_copied_at_the_reset_and_never_again(self, one, decoder, held):
        before = len(one.cudart.copies)
        decoder.reset(held())
        assert uploads(one, before) == [5 * 2 * 8 * 4] * 4
        before = len(one.cudart.copies)
        decoder.run(step(0, 1, 2))
        assert sorted(uploads(one, before)) == [8, 16, 16, 128]

    def test_the_cache_never_leaves_the_device_nor_moves_there(self, one, decoder):
        for position in range(6):
            decoder.run(step(position, 1), [])
        assert {kind for kind, *_ in one.cudart.copies} == {"to_device"}

    def test_longer_prompts_need_no_more_memory(self, one, decoder, held):
        decoder.run(step(0, 1))
        before = one.cudart.live()
        for count in (2, 5, 12):
            decoder.reset(held())
            decoder.run(step(0, *[1] * count), ["token", "logits"])
        assert one.cudart.live() == before

    def test_nothing_is_allocated_by_a_step(self, one, decoder):
        for position in range(4):
            decoder.run(step(position, 1))
        before = one.cudart.calls.copy()
        for position in range(4, 12):
            decoder.run(step(position, 1))
        made = one.cudart.calls - before
        assert not {name for name in made if "Malloc" in name or "Create" in name or "Capture" in name}


class TestRecording:
    def test_the_step_of_one_token_is_recorded_once_for_each_turn(self, one, decoder):
        decoder.run(step(0, 1, 2))
        launches = []
        for position in range(2, 10):
            before = one.cudart.calls["cudaGraphLaunch"]
            decoder.run(step(position, 1))
            launches.append(one.cudart.calls["cudaGraphLaunch"] - before)
        assert launches == [0, 0, 1, 1, 1, 1, 1, 1]
        assert one.cudart.calls["cudaStreamBeginCapture"] == 2
        assert one.executions == [1] + [0] * 8

    def test_recordings_outlive_a_reset_of_the_same_sizes(self, one, decoder, held, tiny):
        for position in range(6):
            decoder.run(step(position, 1))
        decoder.reset(held(3))
        logits = decoder.run(step(0, 4))["logits"]
        assert one.cudart.calls["cudaStreamBeginCapture"] == 2
        assert one.cudart.calls["cudaGraphLaunch"] == 5
        np.testing.assert_allclose(logits, tiny.logits([4], held(3)), rtol=0, atol=2e-6)

    def test_other_sizes_are_recorded_anew(self, one, decoder, held, tiny):
        for source in (5, 9, 5):
            decoder.reset(held(source, source))
            for position, token in enumerate(TOKENS[:6]):
                logits = decoder.run(step(position, token))["logits"]
            np.testing.assert_allclose(logits, tiny.logits(TOKENS[:6], held(source, source)), rtol=0, atol=2e-6)
        assert one.cudart.calls["cudaStreamBeginCapture"] == 6
        assert one.cudart.live()["executables"] == 2

    def test_a_recording_that_fails_is_said_once_and_done_without(self, caplog, built, held, tiny):
        with installed("10.3", capturable=False) as double:
            session, _ = built()
            session.reset(held())
            with caplog.at_level(logging.WARNING):
                for position, token in enumerate(TOKENS):
                    logits = session.run(step(position, token))["logits"]
            np.testing.assert_allclose(logits, tiny.logits(TOKENS, held()), rtol=0, atol=2e-6)
            assert [record.getMessage() for record in caplog.records] == [
                "`decoder` is run without a CUDA graph: tensorrt cannot run `decoder`: IExecutionContext::enqueueV3: "
                "Error Code 1: Cuda Runtime (operation not permitted when capturing)"
            ]
            assert double.cudart.calls["cudaGraphLaunch"] == 0
            assert double.cudart.calls["cudaStreamBeginCapture"] == 1
            session.close()
            assert set(double.cudart.live().values()) == {0}

    def test_an_option_turns_it_off(self, one, built, held):
        session, _ = built(options={"cuda_graph": False})
        session.reset(held())
        for position in range(6):
            session.run(step(position, 1))
        assert one.cudart.calls["cudaStreamBeginCapture"] == 0
        session.close()


@pytest.mark.parametrize(("number", "kind"), KINDS)
def test_a_cache_that_the_engine_updates_in_place_has_one_buffer(number, kind, built, held):
    """The double refuses other addresses than those that the version allows."""
    with installed(number) as double:
        session, reference = built(kind=kind)
        for each in (session, reference):
            each.reset(held())
        for position, token in enumerate(TOKENS):
            same(session.run(step(position, token)), reference.run(step(position, token)))
        caches = [block for block in double.cudart.blocks.values() if block.size == 2 * 16 * 8 * 4]
        assert len(caches) == (4 if kind == "TensorScatter" else 8)
        session.close()


class TestSizes:
    @pytest.mark.parametrize(("count", "refused"), [(12, False), (13, True)])
    def test_a_prompt_longer_than_it_was_built_for_is_refused(self, count, refused, decoder):
        if not refused:
            decoder.run(step(0, *[1] * count))
            return
        built = "length 1 to 1, source 1 to 9 or length 1 to 12, source 1 to 9"
        with pytest.raises(InputError, match=f"`decoder` was built for {built}, not for source 5, length 13"):
            decoder.run(step(0, *[1] * count))

    def test_held_inputs_larger_than_it_was_built_for_are_refused(self, decoder, held):
        decoder.run(step(0, 1))
        with pytest.raises(InputError, match="not for source 10"):
            decoder.reset(held(0, 10))
        with pytest.raises(InputError, match=r"was not given its input `cross.0.key`"):
            decoder.run(step(0, 1))

    def test_a_refused_run_leaves_the_cache_as_it_was(self, decoder, tiny, held):
        decoder.run(step(0, 1, 2))
        for feeds in (step(2, *[1] * 13), {"input_ids": np.array([[3]])}):
            with pytest.raises(InputError):
                decoder.run(feeds)
        np.testing.assert_allclose(decoder.run(step(2, 3))["logits"], tiny.logits([1, 2, 3], held()), rtol=0, atol=2e-6)

    def test_an_answer_is_not_overwritten_by_the_next(self, decoder):
        first = decoder.run(step(0, 1, 2))["logits"]
        before = first.copy()
        decoder.run(step(2, 7))
        np.testing.assert_array_equal(first, before)


class TestTypes:
    def test_before_10_int64_is_int32_on_the_device(self, built, held):
        with installed("8.6") as double:
            session, _ = built()
            session.reset(held())
            before = len(double.cudart.copies)
            assert session.run(step(0, 1, 2))["token"].dtype == np.int64
            assert sorted(uploads(double, before)) == [4, 8, 8, 128]
            session.close()

    def test_what_does_not_fit_into_int32_is_refused(self, built, held):
        with installed("8.6"):
            session, _ = built()
            session.reset(held())
            with pytest.raises(InputError, match="input `input_ids` of `decoder` has a value that is no int32"):
                session.run({"input_ids": np.array([[1 << 32]]), "position_ids": np.array([[0]])})
            session.close()

    def test_an_engine_of_other_types_than_the_bundle_says_is_refused(self, one, fixed_source, tmp_path):
        graph, source = fixed_source("float16")
        artifact = BACKEND.compile(graph, source, tmp_path)
        message = r"`past.0.key` of `decoder` is float16 \[1, 2, 16, 8\] in the engine, the bundle says float32"
        with pytest.raises(BackendError, match=message):
            BACKEND.open(fixed_source("float32")[0], artifact)
        assert set(one.cudart.live().values()) == {0}

    def test_an_engine_with_other_profiles_is_refused(self, one, fixed_source, tmp_path):
        graph, source = fixed_source()
        artifact = BACKEND.compile(graph, source, tmp_path)
        fewer = msgspec.structs.replace(graph, profiles=graph.profiles[:1])
        with pytest.raises(BackendError, match="the engine of `decoder` has 2 profiles, the bundle says 1"):
            BACKEND.open(fewer, artifact)
        assert set(one.cudart.live().values()) == {0}

    def test_an_engine_without_an_output_is_refused(self, one, fixed_source, tmp_path, tower_graph):
        graph, source = fixed_source()
        artifact = BACKEND.compile(graph, source, tmp_path)
        with pytest.raises(BackendError, match="the file of `tower` has no input `pixels`"):
            BACKEND.open(tower_graph, artifact)


class TestEngineFiles:
    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"version": "10.13"}, "not compatible with this version of TensorRT"),
            ({"version": "10.3", "compute_capability": "11.0"}, "generated on an incompatible device"),
        ],
    )
    def test_one_of_another_version_or_device_is_refused(self, settings, reason, fixed_source, tmp_path):
        graph, source = fixed_source()
        with installed("10.3"):
            artifact = BACKEND.compile(graph, source, tmp_path)
        with installed(**settings), pytest.raises(BackendError, match=reason) as caught:
            BACKEND.open(graph, artifact)
        assert "compile the bundle again" in caught.value.hint

    @pytest.mark.parametrize("content", [b"", b"not an engine"])
    def test_anything_else_is_refused(self, content, one, fixed_source, tmp_path):
        artifact = tmp_path / "decoder.plan"
        artifact.write_bytes(content)
        with pytest.raises(BackendError, match="tensorrt cannot open `decoder`"):
            BACKEND.open(fixed_source()[0], artifact)

    def test_a_missing_one_is_refused(self, one, fixed_source, tmp_path):
        with pytest.raises(BackendError, match=r"tensorrt cannot open `decoder`: .*No such file"):
            BACKEND.open(fixed_source()[0], tmp_path / "decoder.plan")

    def test_they_are_tied_to_the_device(self, monkeypatch):
        monkeypatch.setattr("mmedge.backends.tensorrt.l4t", lambda: "36.4.7")
        with installed("10.3", compute_capability="8.7"):
            assert BACKEND.version() == "10.3.0"
            assert BACKEND.tied_to() == {"compute_capability": "8.7", "l4t": "36.4.7"}
        with installed("10.16", compute_capability="11.0"):
            assert BACKEND.version() == "10.16.2"
            assert BACKEND.tied_to()["compute_capability"] == "11.0"


class TestFailures:
    def test_too_little_memory_for_the_weights(self, fixed_source, tmp_path):
        graph, source = fixed_source()
        with installed("10.3", memory_mb=0):
            artifact = BACKEND.compile(graph, source, tmp_path)
            with pytest.raises(ResourceError, match=r"tensorrt cannot open `decoder`: .*out of memory"):
                BACKEND.open(graph, artifact)

    def test_too_little_memory_for_the_buffers(self, fixed_source, tmp_path):
        graph, source = fixed_source()
        with installed("10.3", memory_mb=1) as double:
            artifact = BACKEND.compile(graph, source, tmp_path)
            double.cudart.take((1 << 20) - source.stat().st_size - 34_000)
            with pytest.raises(ResourceError, match=r"no room for .* MiB of memory on the GPU: .* of 1.0 MiB are free"):
                BACKEND.open(graph, artifact)
            assert set(double.cudart.live().values()) == {0}

    def test_a_kernel_that_fails_is_told(self, one, decoder):
        with pytest.raises(BackendError, match=r"CUDA cannot run what was enqueued: an illegal memory access .*700"):
            decoder.run(step(0, 4000))

    def test_a_machine_without_a_device(self):
        with installed("10.3", devices=0), pytest.raises(BackendError, match="no CUDA-capable device is detected"):
            BACKEND.tied_to()

    def test_a_machine_without_tensorrt_is_told_where_it_comes_from(self):
        with pytest.raises(BackendError, match="the package `tensorrt` is not installed") as caught:
            BACKEND.version()
        assert "python3-libnvinfer" in caught.value.hint and "--system-site-packages" in caught.value.hint
        assert "not with pip" in caught.value.hint

    def test_a_cache_that_grows_is_refused(self, one, sources, decoder_graph, tmp_path):
        with pytest.raises(BackendError, match="tensorrt cannot keep the cache of `decoder`: it grows at every step"):
            BACKEND.compile(decoder_graph, sources["decoder"], tmp_path)


@pytest.mark.parametrize("profiles", [(), ({"source": Span(1, 5, 9)},)])
def test_a_decoder_without_ranges_for_its_lengths_is_refused(profiles, one, fixed_source, tmp_path):
    graph, source = fixed_source()
    artifact = BACKEND.compile(graph, source, tmp_path)
    without = msgspec.structs.replace(graph, profiles=profiles)
    for use in (lambda: BACKEND.compile(without, source, tmp_path), lambda: BACKEND.open(without, artifact)):
        with pytest.raises(BackendError, match="no range is given for the length of what `decoder` reads"):
            use()


class TestBrokenInstallations:
    """What the bindings of NVIDIA do where something of the system is missing."""

    def test_a_builder_without_a_device(self, fixed_source, tmp_path):
        graph, source = fixed_source()
        with installed("10.3", devices=0), pytest.raises(BackendError) as caught:
            BACKEND.compile(graph, source, tmp_path)
        assert caught.value.message.startswith("tensorrt cannot build `decoder`: CUDA initialization failure")

    def test_a_runtime_without_a_device(self, fixed_source, tmp_path):
        graph, source = fixed_source()
        with installed("10.3"):
            artifact = BACKEND.compile(graph, source, tmp_path)
        with installed("10.3", devices=0), pytest.raises(BackendError, match="CUDA initialization failure"):
            BACKEND.open(graph, artifact)

    @pytest.mark.parametrize("error", [ImportError("libnvinfer.so.10: cannot open shared object file"), OSError("no")])
    def test_a_module_whose_libraries_are_missing(self, error, monkeypatch):
        class Finder:
            def find_spec(self, name, *rest):
                if name == "tensorrt":
                    raise error

        monkeypatch.setattr("sys.meta_path", [Finder(), *sys.meta_path])
        with pytest.raises(BackendError, match="the package `tensorrt` cannot be loaded: ") as caught:
            BACKEND.version()
        assert str(error) in caught.value.message and "python3-libnvinfer" in caught.value.hint

    def test_a_profile_that_two_contexts_may_not_share(self, fixed_source, tmp_path, held, monkeypatch):
        """An engine of 8.6 that was built without the sharing of profiles."""
        graph, source = fixed_source()
        with installed("8.6") as double:
            monkeypatch.setattr(double.tensorrt, "PreviewFeature", object)
            session = BACKEND.open(graph, BACKEND.compile(graph, source, tmp_path))
            session.reset(held())
            session.run(step(0, 1))
            with pytest.raises(
                BackendError, match=r"tensorrt cannot choose the profile 0 of `decoder`: .*another context"
            ):
                session.run(step(1, 1))
            session.close()

    def test_a_context_that_cannot_be_made(self, one, fixed_source, tmp_path, monkeypatch):
        graph, source = fixed_source()
        artifact = BACKEND.compile(graph, source, tmp_path)

        def refuse(engine, strategy):
            one.world.say(
                engine._state.logger, "Error Code 2: OutOfMemory (Requested size was 4096 bytes, out of memory.)"
            )

        monkeypatch.setattr(one.tensorrt.ICudaEngine, "create_execution_context", refuse)
        with pytest.raises(ResourceError, match=r"tensorrt cannot open `decoder`: .*Requested size was 4096 bytes"):
            BACKEND.open(graph, artifact)
        assert set(one.cudart.live().values()) == {0}

    def test_an_input_that_must_lie_in_the_memory_of_the_host(self, one, fixed_source, tmp_path, monkeypatch):
        graph, source = fixed_source()
        artifact = BACKEND.compile(graph, source, tmp_path)
        host = one.tensorrt.TensorLocation.HOST
        monkeypatch.setattr(one.tensorrt.ICudaEngine, "get_tensor_location", lambda engine, name: host)
        with pytest.raises(BackendError, match="the engine of `decoder` wants `input_ids` in the host's memory"):
            BACKEND.open(graph, artifact)

    def test_a_profile_that_the_builder_does_not_take(self, one, fixed_source, tmp_path, monkeypatch):
        graph, source = fixed_source()
        monkeypatch.setattr(one.tensorrt.IBuilderConfig, "add_optimization_profile", lambda config, profile: -1)
        with pytest.raises(BackendError, match="tensorrt cannot build `decoder` for length 1 to 1, source 1 to 9"):
            BACKEND.compile(graph, source, tmp_path)
