"""Every family's bundle for Jetson, from export to answers, on the doubles of each TensorRT: compiled ahead by the
command, opened, and asked for what torch would say. What runs here is all of our code and none of TensorRT's."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx_ir
import pytest
from mmedge_doubles.install import installed
from mmedge_doubles.settings import VERSIONS

import mmedge
from mmedge import cli
from mmedge.core import find
from mmedge.core.bundle import open_bundle
from mmedge.core.family import Family, Request
from mmedge.errors import QualityError
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint
from mmedge.media.image import decode_picture

CASES = [
    (name, index)
    for name in find.names("families")
    if not (Path(__file__).parent / "checkpoints" / f"{name}.py").exists()  # see test_conversations_on_doubles.py
    for index in range(len(find.family(name).tiny))
]
TEXTS = ("what is it?", "how many are there ?")
READING = tuple(version for version in VERSIONS if version != "8.6")
"""Versions that know the operators of the shipped targets."""

RECIPE = 'name = "tiny"\nmodel = "{model}"\ntarget = "jetson"\nprecision = "{precision}"\n{accept}\n'
ACCEPT = {"float32": "", "float16": "accept = { cosine = 0.98, answers = 0.5 }"}
"""ONNX Runtime, which is inside of the doubles, does not round to float16 as the recorded values were: random weights
make much of that."""

pytestmark = pytest.mark.slow


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0]}-{find.family(case[0]).architectures[case[1]]}"
)
def source(request, tiny_checkpoint, tmp_path_factory) -> tuple[Family, Path]:
    name, index = request.param
    return find.family(name), tiny_checkpoint(index, tmp_path_factory.mktemp(name) / "checkpoint")


@pytest.fixture(scope="module")
def exported(source) -> Callable[[str], Path]:
    """``exported(precision)``: a bundle for Jetson."""

    @cache
    def make(precision: str) -> Path:
        output = source[1].parent / precision
        recipe = output.with_suffix(".toml")
        recipe.write_text(RECIPE.format(model=source[1], precision=precision, accept=ACCEPT[precision]))
        export(str(source[1]), output=output, recipe=recipe)
        return output

    return make


@pytest.fixture(scope="module")
def asked(exported, pictures) -> list[tuple[str, Path, str | None]]:
    """Every task with the first pictures and texts."""
    tasks = open_bundle(exported("float32")).manifest.tasks
    return [
        (task, path, text if task == "ask" else None)
        for path, text in zip(pictures[2:4], TEXTS, strict=True)
        for task in tasks
    ]


@pytest.fixture(scope="module")
def wanted(source, exported, asked) -> list[list[int]]:
    """What the checkpoint's own `generate` says."""
    family, folder = source
    checkpoint = read_checkpoint(folder)
    model = load_model(checkpoint)
    requests = (Request((decode_picture(path.read_bytes(), path.name).pixels,), text) for _, path, text in asked)
    return [family.generate(model, checkpoint.processor, request, 12) for request in requests]


def answers(pipeline, asked) -> list[list[int]]:
    return [list(pipeline.answer(task, path, text, limit=12).tokens) for task, path, text in asked]


def on_double(bundle: Path, version: str, asked, capfd) -> list[list[int]]:
    """Compiled ahead, and answered by engines alone."""
    with installed(version) as double:
        assert cli.run(["compile", str(bundle)]) == 0, capfd.readouterr().err
        before = len(double.executions)
        with mmedge.load(bundle) as pipeline:
            assert set(pipeline.backends.values()) == {"tensorrt"}
            said = answers(pipeline, asked)
        assert len(double.executions) > before
    return said


@pytest.mark.parametrize("version", READING)
def test_a_bundle_is_compiled_and_answers_as_torch(exported, asked, wanted, version, capfd):
    assert on_double(exported("float32"), version, asked, capfd) == wanted


def test_for_a_target_that_reads_operator_set_17_it_answers_on_tensorrt_8_6_too(source, asked, wanted, tmp_path, capfd):
    """JetPack 6.0; no target that ships is for it."""
    shipped = (find.PACKAGE / "targets" / "jetson-orin-nano.toml").read_text().partition("[[stacks]]")[0]
    target = tmp_path / "old.toml"
    target.write_text(shipped.replace("opset = 20", "opset = 17"))
    export(str(source[1]), output=tmp_path / "bundle", target=str(target), precision="float32")
    assert on_double(tmp_path / "bundle", "8.6", asked, capfd) == wanted


@pytest.mark.parametrize("version", ["10.16", "11.1"])
def test_where_every_version_can_the_cache_is_written_in_place(source, asked, wanted, version, tmp_path, capfd):
    """By TensorScatter, of operator set 24; no target that ships is for JetPack 7.2 alone."""
    about, _, newest = (find.PACKAGE / "targets" / "jetson-thor.toml").read_text().split("[[stacks]]")
    target = tmp_path / "new.toml"
    target.write_text(f"{about.replace('opset = 20', 'opset = 24')}[[stacks]]{newest}")
    export(str(source[1]), output=tmp_path / "bundle", target=str(target), precision="float32")
    kinds = [node.op_type for node in onnx_ir.load(tmp_path / "bundle/graphs/decoder.onnx").graph]
    layers = open_bundle(tmp_path / "bundle").manifest.graphs[-1].cache.layers
    assert kinds.count("TensorScatter") == 2 * layers and "Where" not in kinds
    assert on_double(tmp_path / "bundle", version, asked, capfd) == wanted


def test_in_float16_it_answers_as_its_own_graphs_on_onnxruntime(exported, asked, capfd):
    """Random weights choose between tokens by less than float16 tells apart: torch is no measure here."""
    bundle = exported("float16")
    assert {graph.precision for graph in open_bundle(bundle).manifest.graphs} == {"float16"}
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        own = answers(pipeline, asked)
    assert on_double(bundle, "10.3", asked, capfd) == own


def test_a_version_that_cannot_read_the_graphs_says_which_operator_and_another_engine_answers(
    exported, asked, wanted, tmp_path, capfd, caplog
):
    bundle = shutil.copytree(exported("float32"), tmp_path / "bundle")
    with installed("8.6"):
        assert cli.run(["compile", str(bundle)]) == 5
        shown = capfd.readouterr().err
        assert "tensorrt cannot read `encoder`" in shown and "No importer registered for op: Gelu" in shown
        with caplog.at_level(logging.WARNING), mmedge.load(bundle) as pipeline:
            assert set(pipeline.backends.values()) == {"onnxruntime"}
            assert "instead of tensorrt" in caplog.text
            assert answers(pipeline, asked) == wanted


def test_an_engine_that_computes_something_else_is_refused_by_how_much_and_where(exported, tmp_path, capfd):
    bundle = shutil.copytree(exported("float32"), tmp_path / "bundle")
    with installed("10.3", spoil=0.5):
        assert cli.run(["compile", str(bundle)]) == 7
    shown = capfd.readouterr().err
    for component in ("encoder", "decoder"):
        figures = rf"`{component}` was removed: cosine (\S+) in {component}/\S+ for golden/\d+, the bound is ([\d.]+)"
        cosine, bound = map(float, re.search(figures, shown).groups())
        assert cosine < bound
    with installed("10.3"), pytest.raises(QualityError, match=r"`encoder` .*: cosine 0\.\d+ in encoder/") as caught:
        mmedge.load(bundle, backend="tensorrt")
    assert caught.value.exit_code == 7
