"""`layers` and `roofline` on a real bundle: what is shown, and what adds up."""

import hashlib
import json
import shutil

import msgspec
import numpy as np
import pytest

from mmedge.commands.layers import layers
from mmedge.commands.roofline import roofline
from mmedge.core.bundle import MANIFEST, SEAL, File, open_bundle, write_manifest
from mmedge.core.onnx_graph import read_graph
from mmedge.errors import BackendError, InputError, UsageError
from mmedge.profiling.layers import engine_profiles, peaks
from mmedge.profiling.layers.layers import layers_of_candidates
from mmedge.profiling.layers.roofline import roofline as roofline_of_run
from mmedge.profiling.run import Candidate, Input, Sample


@pytest.fixture(autouse=True)
def small_probes(monkeypatch):
    """Peaks of this machine are not what is tested."""
    monkeypatch.setattr(peaks, "SIZE", 64)
    monkeypatch.setattr(peaks, "last_level_cache", lambda: 1 << 20)
    monkeypatch.setattr(engine_profiles, "MOST_ROUNDS", 1)


@pytest.fixture
def told(captioner, capsys):
    """What `layers` says of the bundle as JSON."""
    layers(captioner, json=True)
    return json.loads(capsys.readouterr().out)


def test_times_of_layers_add_up_to_that_of_an_answer(told):
    assert sum(layer["share"] for layer in told["layers"]) == pytest.approx(1.0)
    assert {layer["component"] for layer in told["layers"]} == {"encoder", "decoder"}
    assert set(told["sides"][0]["factors"]) == {"encoder", "decoder"}


def test_every_product_has_its_operations_and_a_roof(told):
    products = [layer for layer in told["layers"] if any(name.endswith("MatMul") for name in layer["onnx_names"])]
    assert products
    assert all(layer["flops"] > 0 and layer["bytes"] > 0 and layer["roof"] > 0 for layer in products)
    assert not told["not_counted"]


def test_tables_fit_80_columns(captioner, capsys):
    layers(captioner, top=5)
    roofline(captioner)
    shown = capsys.readouterr().out.splitlines()
    assert not [line for line in shown if len(line) > 80]
    assert any(line.startswith("and ") for line in shown), "what is not shown is told"
    assert any(line.startswith("decode_loop") for line in shown)


def test_one_bundle_on_two_engines_is_compared_node_by_node(captioner, capsys):
    pytest.importorskip("openvino")
    layers(captioner, backend="onnxruntime,openvino", top=10)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].endswith("on onnxruntime") and shown[1].endswith("on openvino")
    assert not [line for line in shown if len(line) > 80]
    both = [line for line in shown[3:-4] if "-" not in line.split()[1:4]]
    assert len(both) > 5, "most is found on both sides"


def test_a_copy_of_a_bundle_is_as_exact(captioner, tmp_path, capsys):
    shutil.copytree(captioner, tmp_path / "same.bundle")
    layers(captioner, tmp_path / "same.bundle", json=True, output=tmp_path / "layers.json")
    kept = json.loads((tmp_path / "layers.json").read_text())
    assert {layer["c"] for layer in kept["layers"]} == {0, 1}
    assert all(layer["snr_db"] is None for layer in kept["layers"]), "equal bundles need not be compared"


def test_another_bundle_is_compared_tensor_by_tensor(captioner, tmp_path, capsys):
    other = _with_other_weights(captioner, tmp_path / "other.bundle")
    layers(captioner, other, json=True)
    told = json.loads(capsys.readouterr().out)
    noise = [layer["snr_db"] for layer in told["layers"] if layer["c"] == 1 and layer["snr_db"] is not None]
    assert noise and 5 < min(noise) < 60, "a hundredth of every weight"


def test_a_place_that_cannot_be_written_is_refused_before_the_work(captioner, tmp_path, monkeypatch):
    monkeypatch.setattr("mmedge.profiling.layers.layers.see", None)
    with pytest.raises(UsageError, match="there is no folder"):
        layers(captioner, output=tmp_path / "none" / "layers.json")


def test_pictures_can_be_given(captioner, pictures, capsys):
    (pictures / "notes.txt").unlink()
    layers(captioner, inputs=str(pictures), json=True)
    assert json.loads(capsys.readouterr().out)["layers"]


def test_more_than_two_sides_are_refused(captioner):
    with pytest.raises(UsageError, match="4 sides"):
        layers(captioner, captioner, backend="onnxruntime,openvino")


def test_an_engine_that_does_not_count_is_refused_with_what_to_do(captioner):
    with pytest.raises(BackendError, match="does not tell the time") as refused:
        layers(captioner, backend="tensorrt")
    assert "--trtexec" in refused.value.hint


def test_what_trtexec_measured_is_shown_under_onnx_names(captioner, tmp_path, capsys):
    name = _a_product(captioner)
    lines = [{"count": 3}, {"name": f"{name} + other", "timeMs": 3.0, "averageMs": 1.0, "medianMs": 0.5}]
    (tmp_path / "profile.json").write_text(json.dumps(lines))
    layers(captioner, trtexec=f"encoder={tmp_path / 'profile.json'}", json=True)
    (layer,) = json.loads(capsys.readouterr().out)
    assert name in layer["onnx_names"]
    assert layer["us"] == 500.0


def test_a_file_that_is_no_profile_of_trtexec_is_refused(captioner, tmp_path):
    (tmp_path / "profile.json").write_text("{}")
    with pytest.raises(InputError, match="no profile of trtexec"):
        layers(captioner, trtexec=f"encoder={tmp_path / 'profile.json'}")
    with pytest.raises(UsageError, match="no component"):
        layers(captioner, trtexec=f"tower={tmp_path / 'profile.json'}")


def test_without_a_bundle_the_peaks_of_installed_engines_are_shown(capsys):
    roofline(backend="onnxruntime")
    shown = capsys.readouterr().out
    assert shown.startswith("memory ")
    assert "onnxruntime int8-weights" in shown


def test_candidates_are_judged_by_the_peaks_of_their_threads_on_the_input_asked_most(captioner, pictures, monkeypatch):
    monkeypatch.setattr(peaks, "usable_cores", lambda: 2)
    monkeypatch.setattr(peaks, "bandwidths", lambda cache, threads: (10.0 * threads, 10.0 * threads))
    monkeypatch.setattr(peaks, "product_rate", lambda engine, precision, threads, **more: 50.0 * threads)
    picture = next(path for path in sorted(pictures.iterdir()) if path.suffix != ".txt")
    items = [Input(str(at), "caption", str(picture)) for at in range(3)]
    samples = [_sample(c, asked, 5.0 + asked) for c in range(3) for asked in (2, 1, 1, 2, 2)]
    samples += [_sample(0, 0, 1.0, "warmup") for _ in range(9)]
    found, roofs = roofline_of_run([_candidate(captioner, threads) for threads in (2, 1, 0)], items, samples)
    two, one, every = roofs
    assert found.threads == 2 and found.others[0].threads == 1
    assert one.ceiling_ms == pytest.approx(2 * two.ceiling_ms) and every.ceiling_ms == two.ceiling_ms
    assert all((each.input, each.n, each.measured_ms) == (2, 3, 7.0) for each in roofs)


def test_layers_of_candidates_are_profiled_and_judged_with_their_own_threads(captioner, monkeypatch):
    opened, profiled = [], engine_profiles.engine_profile
    product = engine_profiles.Kernel("encoder", "product", "MatMul", (_a_product(captioner),), 1.0)
    monkeypatch.setattr(peaks, "usable_cores", lambda: 2)
    monkeypatch.setattr(peaks, "bandwidths", lambda cache, threads: (10.0 * threads, 10.0 * threads))
    monkeypatch.setattr(peaks, "product_rate", lambda engine, precision, threads, **more: 50.0 * threads)
    monkeypatch.setattr(
        "mmedge.profiling.layers.layers.engine_profile",
        lambda bundle, backend, threads, asked, say: (
            opened.append(threads) or profiled(bundle, backend, 1, asked, say)._replace(kernels=(product,))
        ),
    )
    found, flags = layers_of_candidates([_candidate(captioner, threads) for threads in (1, 0)])
    assert opened == [1, 0] and not flags
    one, every = found
    assert one.roof == pytest.approx(2 * every.roof)


def _candidate(bundle, threads: int) -> Candidate:
    opened = open_bundle(bundle)
    engines = {graph.component: "onnxruntime" for graph in opened.manifest.graphs}
    return Candidate("small", str(bundle), opened.digest, "onnxruntime", {}, 1, threads, engines)


def _sample(c: int, asked: int, ms: float, phase: str = "round") -> Sample:
    stages = {"encode": int(ms * 1e6)}
    return Sample(c, 0, 0, asked, phase, 0, int(ms * 1e6), stages, (1, 2), 0)


def _a_product(bundle) -> str:
    graph = read_graph(open_bundle(bundle).read("graphs/encoder.onnx"))
    return next(node.name for node in graph.nodes if node.op == "MatMul")


def _with_other_weights(bundle, folder):
    """The encoder's weights a little off."""
    shutil.copytree(bundle, folder)
    manifest = open_bundle(folder).manifest
    name = "graphs/encoder.onnx.data"
    weights = np.fromfile(folder / name, np.float32)
    noise = np.random.default_rng(0).normal(1, 0.01, weights.shape).astype(np.float32)
    (weights * noise).tofile(folder / name)
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for seal in (MANIFEST, SEAL):
        (folder / seal).unlink()
    files = manifest.files | {name: File(manifest.files[name].size, digest)}
    write_manifest(folder, msgspec.structs.replace(manifest, files=files))
    return folder
