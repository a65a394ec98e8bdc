"""`mmedge check` of a bundle, as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from mmedge.core import find
from mmedge.core.bundle import Graph, Manifest
from mmedge.core.ports import Port
from mmedge.core.recipe import Acceptance
from mmedge.core.report import Agreement, Answers
from mmedge.core.writing import new_bundle

CLEAN = "{ y = Relu(x) }"
DIRTY = "{ a = Det(x) y = Relu(x) }"
WARNED = "<bool c = {1}> { y = If(c) <then_branch = t () => (float[4,4] a) { a = Relu(x) }, else_branch = e () =>"
WARNED += " (float[4,4] b) { b = Abs(x) }> }"


@pytest.fixture
def bundle(tmp_path) -> Callable[[str], Path]:
    """``bundle(body, target)`` writes one of a single graph."""

    def write(body: str, target: str = "jetson") -> Path:
        model = onnx.parser.parse_model(
            f'<ir_version: 10, opset_import: ["" : 20]> tower (float[4,4] x) => (float[4,4] y) {body}'
        )
        ports = [(Port(name, "float32", (4, 4)),) for name in "xy"]
        manifest = Manifest(
            schema=1,
            name="small",
            title="",
            model="builtin:small",
            family="blip",
            tasks=("caption",),
            target=find.target(target),
            graphs=(Graph("tower", "graphs/tower.onnx", *ports, "float32"),),
            config={"model": {}, "image": {}, "text": {"clean_up_tokenization_spaces": True}, "generation": {}},
            assets={"tokenizer": "assets/tokenizer.json"},
            golden=(),
            accept=Acceptance(0.99, 1.0),
            agreement=(Agreement("tower", "float32", 0.0, 1.0, "0", 1),),
            answers=Answers(1, 1),
            preprocess_max_abs=0.0,
            made_with={},
            files={},
        )
        with new_bundle(tmp_path / "small.bundle") as draft:
            for folder in ("graphs", "assets"):
                (draft.folder / folder).mkdir()
            onnx.save(model, draft.folder / "graphs" / "tower.onnx")
            (draft.folder / "assets" / "tokenizer.json").write_text("{}")
            return draft.finish(manifest).path

    return write


def test_a_clean_bundle_exits_0_and_says_for_which_systems(mmedge, bundle):
    shown = mmedge("check", bundle(CLEAN))
    assert (shown.code, shown.err) == (0, "")
    assert " ".join(shown.out.split()).endswith(
        "0 errors, 1 warning in 1 graph for JetPack 6.2 (TensorRT 10.3), JetPack 7.2 (TensorRT 10.16)"
    )
    assert max(map(len, shown.out.splitlines())) <= 80


def test_an_error_exits_4_after_the_table(mmedge, bundle):
    shown = mmedge("check", bundle(DIRTY))
    assert shown.code == 4 and shown.err == ""
    assert "operators/unsupported" in shown.out and "hint: " in shown.out and "to build" in shown.out


def test_the_table_is_80_columns_wide_with_the_worst_first(mmedge, bundle):
    lines = mmedge("check", bundle(DIRTY)).out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    titles = [line.strip() for line in lines if line.strip() in ("errors", "warnings", "notes")]
    assert titles == ["errors", "warnings"]


def test_json_has_every_finding_and_the_plan(mmedge, bundle):
    shown = mmedge("check", bundle(DIRTY), "--json")
    found = json.loads(shown.out)
    assert shown.code == 4 and found["target"]["name"] == "jetson-orin-nano"
    first = found["findings"][0]
    assert (first["check"], first["severity"]) == ("operators/unsupported", "error")
    assert (first["component"], first["stacks"]) == ("tower", ["JetPack 6.2", "JetPack 7.2"])
    assert found["memory"]["run_mib"] == pytest.approx(sum(part["mib"] for part in found["memory"]["run"]), abs=0.1)


def test_the_target_is_the_bundles_own_unless_told(mmedge, bundle):
    path = bundle(DIRTY, "cpu")
    assert mmedge("check", path).code == 0
    other = mmedge("check", path, "--target", "jetson")
    assert other.code == 4 and "it was exported for `cpu`" in other.out


def test_warnings_alone_exit_0(mmedge, bundle):
    shown = mmedge("check", bundle(WARNED))
    assert shown.code == 0 and "operators/data-dependent" in shown.out


def test_a_damaged_bundle_exits_4(mmedge, bundle):
    path = bundle(CLEAN)
    (path / "graphs" / "tower.onnx").write_bytes(b"nonsense")
    shown = mmedge("check", path)
    assert shown.code == 4 and "the manifest says" in shown.err


def test_options_of_an_export_do_not_go_with_a_bundle(mmedge, bundle):
    shown = mmedge("check", bundle(CLEAN), "--precision", "int8")
    assert shown.code == 2 and "`--precision` is for a model" in shown.err


def test_a_conversation_that_gets_longer_takes_more(mmedge, captioner):
    def cache(length):
        found = json.loads(mmedge("check", captioner, "--length", str(length), "--json").out)
        return next(part["mib"] for part in found["memory"]["run"] if part["what"].startswith("cache"))

    assert cache(24) == pytest.approx(2 * cache(12))


def test_a_length_that_no_conversation_can_have_exits_2(mmedge, captioner):
    shown = mmedge("check", captioner, "--length", "100000")
    assert shown.code == 2 and "a conversation of 100000 tokens is asked for, the bundle reads 1 to " in shown.err


def test_a_length_is_for_bundles_alone(mmedge):
    shown = mmedge("check", "builtin:scenes-captioner", "--length", "100")
    assert shown.code == 2 and "`--length` is for a bundle" in shown.err
