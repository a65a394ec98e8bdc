import json
import sys
from pathlib import Path

import pytest

import mmedge as package
from mmedge.core import find
from mmedge.errors import BackendError

slow = pytest.mark.slow


def test_the_output_must_be_named(mmedge):
    shown = mmedge("export", "builtin:scenes")
    assert shown.code == 2 and "--output" in shown.err


def test_a_folder_that_is_no_bundle_is_not_replaced(mmedge, tmp_path):
    (tmp_path / "holiday.txt").write_text("precious")
    shown = mmedge("export", "builtin:scenes", "-o", tmp_path, "--force")
    assert shown.code == 2 and (tmp_path / "holiday.txt").read_text() == "precious"


def test_without_the_extra_python_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "mmedge.export.build", raising=False)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(BackendError, match="the package `onnx_ir` is not installed") as missing:
        package.export("builtin:scenes", output=tmp_path / "out.bundle")
    assert missing.value.hint == 'pip install "mmedge[export]"'


@slow
def test_a_bundle_is_made_and_named_on_standard_output(mmedge, checkpoints, tmp_path):
    output = tmp_path / "out.bundle"
    shown = mmedge("export", checkpoints[0], "-o", output, "--precision", "float32")
    assert (shown.code, shown.out) == (0, f"{output}\n")
    assert "answers equal to torch" in shown.err
    again = mmedge("export", checkpoints[0], "-o", output, "--precision", "float32", "--json")
    assert again.code == 2 and json.loads(again.out)["error"]["exit_code"] == 2


@slow
def test_a_precision_that_the_target_lacks_is_a_usage_error(mmedge, checkpoints, tmp_path):
    shown = mmedge("export", checkpoints[0], "-o", tmp_path / "o.bundle", "--precision", "int4", "--target", "jetson")
    assert shown.code == 2 and "int4" in shown.err
    assert not (tmp_path / "o.bundle").exists()


@slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_bundle_for_jetson_has_standard_graphs_and_passes_on_another_engine(mmedge, checkpoints, tmp_path, precision):
    output, recipe = tmp_path / "jetson.bundle", tmp_path / "jetson.toml"
    # Weights are random, so that rounding soon leads to other words; here it is the spelling of graphs that counts.
    recipe.write_text(
        f'name = "tiny"\nmodel = "{checkpoints[0]}"\ntarget = "jetson"\nprecision = "{precision}"\n'
        "[accept]\ncosine = 0.5\nanswers = 0.0\n"
        f'[calibration]\nfiles = "{find.data("calib") / "scenes"}"\nsamples = 8\n'
    )
    shown = mmedge("export", checkpoints[0], "-o", output, "--recipe", recipe)
    assert shown.code == 0, shown.err
    assert mmedge("verify", output, "--backend", "onnxruntime").code == 0
    check_graphs(output)


def check_graphs(bundle: Path) -> None:
    import onnx

    graphs = sorted(bundle.glob("graphs/*.onnx"))
    assert graphs
    for path in graphs:
        model = onnx.load(path, load_external_data=False)
        assert {(known.domain, known.version <= 20) for known in model.opset_import} == {("", True)}
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert not model.functions
