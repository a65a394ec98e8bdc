import json

import pytest


def test_a_bundle_that_is_not_there_is_a_usage_error(mmedge, tmp_path):
    shown = mmedge("inspect", tmp_path / "none.bundle")
    assert shown.code == 2 and "there is no bundle at" in shown.err


def test_a_damaged_manifest_exits_4(mmedge, tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    assert mmedge("inspect", tmp_path).code == 4


@pytest.mark.slow
def test_graphs_are_shown_in_80_columns(mmedge, captioner):
    shown = mmedge("inspect", captioner)
    assert (shown.code, shown.err) == (0, "")
    assert all(word in shown.out for word in ("decoder", "float32", "onnxruntime", "can      caption"))
    assert max(len(line) for line in shown.out.splitlines() if line.startswith("decoder")) <= 80


@pytest.mark.slow
def test_json_is_the_manifest(mmedge, captioner):
    shown = mmedge("inspect", captioner, "--json")
    assert json.loads(shown.out) == json.loads((captioner / "manifest.json").read_text())


@pytest.mark.slow
def test_a_bundle_for_an_engine_that_is_not_there_can_be_looked_into(mmedge, foreign_bundle):
    shown = mmedge("inspect", foreign_bundle)
    assert shown.code == 0 and "coreml" in shown.out
