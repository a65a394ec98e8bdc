"""Graphs as the exporter and the quantizers of others make them."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
from msgspec.structs import replace
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from mmedge.core import find
from mmedge.core.bundle import open_bundle
from mmedge.export.check.findings import refuse
from mmedge.export.check.run import check_bundle, check_graphs
from mmedge.export.quantize import quantize, quiet


class Reader(CalibrationDataReader):
    def __init__(self, feeds) -> None:
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def checks(findings) -> set[str]:
    return {each.check for each in findings.found if each.severity != "note"}


def test_what_onnxruntime_quantizes_by_default_is_refused(check, old_tower, pictures, tmp_path):
    with quiet():
        quantize_static(old_tower, tmp_path / "default.onnx", Reader(pictures))
    found = check(onnx.load(tmp_path / "default.onnx"), precision="int8")
    assert {"qdq/zero-point", "qdq/bias", "qdq/weight-scales", "qdq/sensitive"} <= checks(found)


@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_what_is_quantized_for_these_engines_is_accepted(precision, tmp_path, old_tower, pictures, graphs, device):
    target = replace(device, typed=True)
    (tmp_path / "graphs").mkdir()
    (tmp_path / "ranges").mkdir()
    output = tmp_path / graphs.tower.file
    made = quantize(graphs.tower, old_tower, output, precision=precision, feeds=pictures, target=target)
    (tmp_path / "ranges" / "tower.json").write_text(json.dumps(made.ranges))
    assert check_graphs([made.graph], tmp_path, target).found == ()


@pytest.fixture(scope="module")
def exported(tiny_checkpoint, tmp_path_factory) -> Path:
    from mmedge.export.build import export

    folder = tmp_path_factory.mktemp("exported")
    export(str(tiny_checkpoint(0, folder / "checkpoint")), output=folder / "tiny.bundle", target="jetson")
    return folder / "tiny.bundle"


@pytest.fixture
def copy(exported, tmp_path) -> Path:
    return shutil.copytree(exported, tmp_path / "copy.bundle")


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["jetson", "jetson-orin-nano-4gb", "jetson-orin-nx", "jetson-agx-orin", "jetson-thor"]
)
def test_an_export_for_one_jetson_passes_for_all_of_them(exported, target):
    findings = check_bundle(open_bundle(exported), find.target(target))
    refuse(findings)
    assert findings.of("warning") == () and len(findings.graphs) == 2


@pytest.mark.slow
def test_a_large_value_in_an_export_is_found_with_its_module(copy):
    path = copy / "ranges" / "encoder.json"
    ranges = json.loads(path.read_text())
    path.write_text(json.dumps(dict.fromkeys(ranges, 9000.0)))
    bundle = open_bundle(copy)
    found = check_graphs(bundle.manifest.graphs, copy, bundle.manifest.target).of("error")
    assert {each.check for each in found} == {"ranges/large"}
    assert {each.module.partition(".")[0] for each in found} == {"vision_model", "text_decoder"}


@pytest.mark.slow
def test_a_bundle_for_a_pc_says_what_must_be_exported_anew(tiny_checkpoint, tmp_path):
    from mmedge.export.build import export

    export(str(tiny_checkpoint(0, tmp_path / "checkpoint")), output=tmp_path / "pc.bundle", precision="float32")
    findings = check_bundle(open_bundle(tmp_path / "pc.bundle"), find.target("jetson"))
    assert {"profiles/cache", "profiles/missing", "operators/opset", "target/float32"} <= checks(findings)
    hints = {each.hint for each in findings.found if each.check == "profiles/cache"}
    assert hints == {"export the model again with --target jetson-orin-nano"}
