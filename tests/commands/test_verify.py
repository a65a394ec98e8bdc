import json
import shutil

import pytest

slow = pytest.mark.slow


def test_a_bundle_that_is_not_there_is_a_usage_error(mmedge, tmp_path):
    shown = mmedge("verify", tmp_path / "none.bundle")
    assert shown.code == 2 and "there is no bundle at" in shown.err


@slow
def test_a_whole_bundle_passes(mmedge, captioner):
    shown = mmedge("verify", captioner)
    assert shown.code == 0 and "checks passed on onnxruntime" in shown.out and "FAILED" not in shown.out


@slow
def test_json_tells_every_check(mmedge, captioner):
    found = json.loads(mmedge("verify", captioner, "--json").out)
    assert found["passed"] and {check["what"] for check in found["checks"]} >= {"preprocess", "decoder", "tokens"}


@slow
def test_a_changed_file_exits_4_and_is_named(mmedge, captioner, tmp_path):
    bundle = shutil.copytree(captioner, tmp_path / "changed.bundle")
    graph = bundle / "graphs/decoder.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    shown = mmedge("verify", bundle)
    assert shown.code == 4 and "graphs/decoder.onnx" in shown.err


@slow
def test_a_bundle_for_an_engine_that_is_not_there_exits_5_and_passes_on_another(mmedge, foreign_bundle):
    shown = mmedge("verify", foreign_bundle)
    assert shown.code == 5 and "this version has no engine `coreml`" in shown.err
    assert mmedge("verify", foreign_bundle, "--backend", "onnxruntime").code == 0


@slow
def test_threads_that_the_machine_lacks_are_a_usage_error(mmedge, captioner):
    assert mmedge("verify", captioner, "--threads", 100_000).code == 2
