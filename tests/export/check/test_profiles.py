import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from mmedge.core.ports import CacheShape, Port, Span

ALL = ("10.3", "10.13", "10.16", "11.x")

CACHE = CacheShape(layers=1, heads=2, head_dim=4, capacity=16)
STEP = {"length": Span(1, 1, 1)}
PROMPT = {"length": Span(1, 4, 12)}


def decoder(cache: CacheShape = CACHE) -> onnx.ModelProto:
    """Gives back its cache, and of its tokens the last one's bias."""
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}

    def infos(ports: tuple[Port, ...]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(port.name, kinds[port.dtype], port.shape) for port in ports]

    nodes = [helper.make_node("Identity", [f"past.0.{part}"], [f"present.0.{part}"]) for part in ("key", "value")]
    nodes.append(helper.make_node("ArgMax", ["words"], ["token"], axis=-1, keepdims=0))
    inputs = infos((Port("words", "float32", (1, "length", 8)), *cache.past(), *cache.steering()))
    outputs = infos((Port("token", "int64", (1, "length")), *cache.present()))
    graph = helper.make_graph(nodes, "part", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture
def found(check, device):
    """Errors and warnings about the decoder with these profiles."""

    def run(*profiles, cache=CACHE, target=device):
        ports = {"inputs": (Port("words", "float32", (1, "length", 8)),)}
        findings = check(decoder(cache), target, cache=cache, profiles=profiles, **ports, outputs=TOKEN)
        return [each.check for each in findings.found if each.severity != "note"]

    return run


TOKEN = (Port("token", "int64", (1, "length")),)


def test_a_decoder_with_a_fixed_cache_and_both_profiles_is_fine(found):
    assert found(STEP, PROMPT) == []


def test_a_decoder_without_profiles_is_refused(found):
    assert found() == ["profiles/missing"]


def test_a_decoder_needs_a_profile_for_a_single_token(found):
    assert found(PROMPT) == ["profiles/decoder"]


def test_a_decoder_needs_a_profile_for_a_prompt(found):
    assert found(STEP) == ["profiles/decoder"]


def test_a_prompt_longer_than_the_cache_is_refused(found):
    assert found(STEP, {"length": Span(1, 4, 17)}) == ["profiles/cache"]


@pytest.mark.parametrize("span", [Span(0, 1, 2), Span(3, 2, 4), Span(1, 5, 4)])
def test_a_range_out_of_order_is_refused(found, span):
    assert found(STEP, {"length": span}) == ["profiles/order", *(["profiles/decoder"] if span.largest < 2 else [])]


def test_each_profile_needs_every_size(found):
    assert found(STEP, PROMPT, {}) == ["profiles/missing"]


def test_a_range_for_a_size_that_no_input_has_is_warned_about(found):
    assert found(STEP, {**PROMPT, "frames": Span(1, 2, 3)}) == ["profiles/unused"]


def test_a_cache_that_grows_has_to_be_exported_anew(found):
    growing = CacheShape(layers=1, heads=2, head_dim=4)
    spans = {"past": Span(1, 2, 3)}
    assert found({**STEP, **spans}, {**PROMPT, **spans}, cache=growing) == ["profiles/cache"]


def test_a_batch_that_varies_is_fine_where_nothing_is_kept_from_step_to_step(rejected):
    assert rejected("float[batch,4] x => float[batch,4] y { y = Relu(x) }") == {}


def test_a_batch_of_a_decoder_that_varies_is_refused(check, device):
    profiles = tuple({**spans, "batch": Span(1, 1, 4)} for spans in (STEP, PROMPT))
    inputs = (Port("words", "float32", ("batch", "length", 8)),)
    found = check(decoder(), device, cache=CACHE, profiles=profiles, inputs=inputs, outputs=TOKEN)
    assert "profiles/batch" in {each.check for each in found.of("error")}


def test_shapes_that_do_not_fit_at_one_end_of_a_range_are_refused(check):
    text = "float[n,4] x => float[m,4] y <float[3,4] c = ones> { y = Add(x, c) }"
    (found,) = check(text).of("error")
    assert found.check == "profiles/shapes" and "at n 4" in found.message
    assert check(text, profiles=({"n": Span(1, 1, 3)},)).found == ()


def test_a_device_that_runs_graphs_as_they_are_needs_no_profiles(found, device):
    assert found(target=replace(device, stacks=())) == []
