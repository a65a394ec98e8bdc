import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytestmark = pytest.mark.parametrize("backend", ["openvino"], indirect=True)

ALONE = """
import sys
from pathlib import Path

import msgspec

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "os.posix_spawn"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)
from mmedge.backends.openvino import BACKEND
from mmedge.core.manifest import Graph

assert "openvino" not in sys.modules
graph = msgspec.json.decode(sys.argv[1], type=Graph)
artifact = Path(sys.argv[3])
if not artifact.exists():
    artifact = BACKEND.compile(graph, Path(sys.argv[2]), artifact.parent)
BACKEND.open(graph, artifact)
assert "openvino" in sys.modules
assert "openvino_telemetry" not in sys.modules
"""


def test_the_engine_reports_nothing_to_anyone(backend, sources, decoder_graph, tmp_path):
    """Neither while it compiles nor, in a second process, while it only opens."""
    home, output = tmp_path / "home", tmp_path / "output"
    home.mkdir()
    output.mkdir()
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[2])}
    graph = msgspec.json.encode(decoder_graph).decode()
    command = [sys.executable, "-c", ALONE, graph, str(sources["decoder"]), str(output / "decoder.blob")]
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


def layers_of(session) -> list[str]:
    """What the engine really runs."""
    nodes = session._request.get_compiled_model().get_runtime_model().get_ops()
    return [node.get_rt_info()["layerType"].astype(str) for node in nodes]


def test_self_attention_and_its_state_are_one_operation(decoder, decoder_graph):
    kinds, layers = layers_of(decoder), decoder_graph.cache.layers
    assert kinds.count("ScaledDotProductAttention") == layers
    assert kinds.count("MemoryInput") == 2 * layers


def test_the_cache_is_neither_input_nor_output(decoder):
    compiled = decoder._request.get_compiled_model()
    assert [edge.get_any_name() for edge in compiled.outputs] == ["logits"]
    assert not [edge for edge in compiled.inputs if edge.get_any_name().startswith("past")]


def test_a_decoder_that_cannot_be_read_back_is_kept_as_a_model(
    backend, sources, decoder_graph, decoder, held, tmp_path, monkeypatch
):
    """As on Arm."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    artifact = backend.compile(decoder_graph, sources["decoder"], tmp_path)
    assert artifact.suffix == ".xml"
    other = backend.open(decoder_graph, artifact)
    for position, token in enumerate([3, 1, 4]):
        feeds = {"input_ids": np.array([[token]]), "position_ids": np.array([[position]]), **held()}
        assert np.array_equal(other.run(feeds)["logits"], decoder.run(feeds)["logits"])


@pytest.mark.parametrize("precision", ["float32", "float16", "int8-weights", "int4-weights"])
def test_everything_but_static_int8_computes_in_float32(precision, backend, sources, tower_graph, tmp_path):
    graph = msgspec.structs.replace(tower_graph, precision=precision)
    session = backend.open(graph, backend.compile(graph, sources["tower"], tmp_path))
    assert str(session._request.get_compiled_model().get_property("INFERENCE_PRECISION_HINT")) == "<Type: 'float32'>"
