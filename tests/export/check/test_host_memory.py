"""What is predicted for engines that run in the process."""

import onnx
import pytest
from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.manifest import Form, Graph
from mmedge.core.ports import CacheShape, Port, Span
from mmedge.errors import UsageError
from mmedge.export.check.host_memory import HOSTS, LENGTH, WORDS, runs_on_host
from mmedge.export.check.run import check_graphs

MIB = 1 << 20
PICTURE = "float[256,1024] x => float[256,1024] y"
ATTEND = "float[1,4,length,64] x => float[1,4,length,64] y { y = Attention(x, x, x) }"
CACHE = CacheShape(layers=3, heads=4, head_dim=64)


@pytest.fixture
def part(tmp_path):
    """``part(text)``: a graph in a file of its own, as a manifest describes it."""

    def make(text: str, component: str = "part", words: tuple[str, ...] = (), **manifest: object) -> Graph:
        header = '<ir_version: 10, opset_import: ["" : 23]>'
        inputs, _, rest = text.partition("=>")
        outputs, brace, body = rest.partition("{") if "<" not in rest.partition("{")[0] else rest.partition("<")
        model = onnx.parser.parse_model(f"{header} {component} ({inputs}) => ({outputs}) {brace}{body}")
        onnx.save(model, tmp_path / f"{component}.onnx")
        ports = [tuple(map(_port, values)) for values in (model.graph.input, model.graph.output)]
        profiles = ({word: Span(1, 2, 4096) for word in words},) if words else ()
        values = {"precision": "float32", "profiles": profiles, **manifest}
        return Graph(component, f"{component}.onnx", *ports, **values)

    return make


def _port(value: onnx.ValueInfoProto) -> Port:
    dims = value.type.tensor_type.shape.dim
    return Port(value.name, "float32", tuple(dim.dim_value or dim.dim_param for dim in dims))


@pytest.fixture
def planned(tmp_path):
    """``planned([graph], "onnxruntime")``: MiB by part."""

    def run(graphs: list[Graph], backend: str = "onnxruntime", length: int | None = None, vocabulary: int = 0):
        target = replace(find.target("cpu"), backends={"tower": backend, "decode": backend})
        parts = check_graphs(graphs, tmp_path, target, length, vocabulary).memory.run
        return {part.what: part.mib for part in parts}

    return run


def weighted(rows: int, operator: str = "MatMul") -> str:
    """A product with a weight of ``rows`` KiB."""
    ones = ",".join(["1"] * (rows * 256))
    return f"float[1,{rows}] x => float[1,256] y <float[{rows},256] w = {{{ones}}}> {{ y = {operator}(x, w) }}"


@pytest.mark.parametrize("backend", HOSTS)
def test_the_engine_is_there_before_any_graph(backend, planned, part):
    found = planned([part(f"{PICTURE} {{ y = Relu(x) }}")], backend)
    assert found[f"libraries of {backend}"] == HOSTS[backend].libraries_mib


@pytest.mark.parametrize("backend", HOSTS)
def test_weights_are_held_as_often_as_the_engine_was_seen_to(backend, planned, part):
    found = planned([part(weighted(64))], backend)
    assert found["weights of part"] == pytest.approx(HOSTS[backend].multiplied * 64 / 1024)


@pytest.mark.parametrize("backend", HOSTS)
def test_decoders_whose_cache_grows_hold_theirs_as_often_as_was_seen(backend, planned, part):
    found = planned([part(weighted(64), cache=CACHE)], backend, 1024)
    assert found["weights of part"] == pytest.approx(HOSTS[backend].stepped * 64 / 1024)


def test_a_table_that_rows_are_read_from_stays_in_its_file(planned, part):
    ones = ",".join(["1"] * 1024)
    text = f"int64[1] x => float[1,256] y <float[4,256] w = {{{ones}}}> {{ y = Gather(w, x) }}"
    assert planned([part(text)])["weights of part"] == 0
    assert planned([part(text)], "openvino")["weights of part"] == 0


def test_openvino_keeps_the_file_of_what_rotates(planned, part):
    ones = ",".join(["1"] * 64 * 64)
    turned = "a = RotaryEmbedding(x, c, s) y = MatMul(a, w)"
    inputs = "float[1,1,1,64] x, float[1,1,32] c, float[1,1,32] s"
    text = f"{inputs} => float[1,1,1,64] y <float[64,64] w = {{{ones}}}> {{ {turned} }}"
    assert planned([part(text)], "openvino")["weights of part"] == pytest.approx(2 * 64 * 64 * 4 / MIB)
    assert planned([part(text)])["weights of part"] == pytest.approx(1.05 * 64 * 64 * 4 / MIB)


def test_only_the_worst_moment_counts(planned, part):
    small, large = (
        part(f"{PICTURE} {{ y = Relu(x) }}", "small"),
        part("float[512,1024] x => float[512,1024] z { b = Relu(x) z = Relu(b) }", "large"),
    )
    found = planned([small, large])
    assert "values of small" not in found and found["values of large"] == 4


def test_a_large_weight_is_there_twice_while_it_is_packed(planned, part):
    assert planned([part(weighted(64))])["opening part"] == 64 / 1024


def test_values_made_of_weights_alone_are_weights(planned, part):
    ones = ",".join(["1"] * 256 * 256)
    turned = "a = Transpose<perm=[1,0]>(w) y = MatMul(x, a)"
    found = planned([part(f"float[1,256] x => float[1,256] y <float[256,256] w = {{{ones}}}> {{ {turned} }}")])
    assert found["weights of part"] == pytest.approx(1.05 / 4) and found["opening part"] == 1 / 4


def test_a_cache_is_as_long_as_the_conversation(planned, part):
    decoder = part(ATTEND, words=("length",), cache=CACHE)
    one = 3 * 2 * 4 * 64 * 4 / MIB
    assert planned([decoder], length=100)["cache of part"] == pytest.approx(2 * 100 * one)
    assert planned([decoder])["cache of part"] == pytest.approx(2 * LENGTH * one)


def test_a_shared_cache_is_there_once(planned, part):
    decoder = part(ATTEND, words=("length",), cache=CACHE)
    form = Form(decoder.file, decoder.inputs, decoder.outputs, replace(CACHE, shared=True))
    decoder = replace(decoder, forms={"onnxruntime": form})
    assert planned([decoder], length=100)["cache of part"] == pytest.approx(100 * 3 * 2 * 4 * 64 * 4 / MIB)


def test_scores_of_attention_grow_with_the_square_of_the_length(planned, part):
    decoder = part(ATTEND, words=("length",), cache=CACHE)
    short, long = (planned([decoder], length=length)["values of part"] for length in (1024, 2048))
    assert short == pytest.approx(1 + 2 * 4 * 1024 * 1024 * 4 / MIB)
    assert long == pytest.approx(2 + 2 * 4 * 2048 * 2048 * 4 / MIB)
    assert planned([decoder], "openvino", 1024)["values of part"] == pytest.approx(1)


def test_what_a_graph_makes_for_another_is_there_twice(planned, part):
    first, second = (
        part(f"{PICTURE} {{ y = Relu(x) }}", "first"),
        part("float[256,1024] y => float[512,1024] z { z = Concat<axis=0>(y, y) }", "second"),
    )
    assert planned([first, second])["outputs of first"] == 2


def test_the_vocabulary_counts(planned, part):
    assert planned([part(f"{PICTURE} {{ y = Relu(x) }}")], vocabulary=MIB)["tokenizer"] == WORDS


@pytest.mark.parametrize("length", [0, -1, 4097])
def test_a_length_that_no_conversation_can_have_is_refused_with_the_bound(length, planned, part):
    decoder = part(ATTEND, words=("length",), cache=CACHE)
    with pytest.raises(UsageError, match=f"a conversation of {length} tokens is asked for, the bundle reads 1 to 4096"):
        planned([decoder], length=length)


def test_on_a_device_with_a_fixed_cache_no_length_can_be_chosen(part, device, tmp_path):
    assert not runs_on_host(device)
    with pytest.raises(UsageError, match="is fixed when it is exported"):
        check_graphs([part(f"{PICTURE} {{ y = Relu(x) }}")], tmp_path, device, 100)
