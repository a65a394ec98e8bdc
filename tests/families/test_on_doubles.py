"""Every family's bundle for Jetson, from export to answers, on the doubles of each TensorRT: compiled ahead by the
command, opened, and asked for what torch would say. What runs here is all of our code and none of TensorRT's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mmedge_doubles.install import installed
from mmedge_doubles.settings import VERSIONS

import mmedge
from mmedge import cli
from mmedge.core import find
from mmedge.core.bundle import open_bundle
from mmedge.core.family import Family, Request
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint
from mmedge.media.image import decode_picture

CASES = [(name, index) for name in find.names("families") for index in range(len(find.family(name).tiny))]
TEXTS = ("what is it?", "how many are there ?")

pytestmark = pytest.mark.slow


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0]}-{find.family(case[0]).architectures[case[1]]}"
)
def exported(request, tiny_checkpoint, tmp_path_factory) -> tuple[Family, Path, Path]:
    name, index = request.param
    family, work = find.family(name), tmp_path_factory.mktemp(name)
    checkpoint = tiny_checkpoint(index, work / "checkpoint")
    export(str(checkpoint), output=work / "bundle", target="jetson", precision="float32")
    return family, checkpoint, work / "bundle"


@pytest.fixture(scope="module")
def wanted(exported, pictures) -> dict[tuple[str, str | None], list[int]]:
    """What the checkpoint's own `generate` says of the first pictures, by path and question."""
    family, folder, bundle = exported
    checkpoint = read_checkpoint(folder)
    model, said = load_model(checkpoint), {}
    for path, text in zip(pictures[2:4], TEXTS, strict=True):
        for task in open_bundle(bundle).manifest.tasks:
            asked = text if task == "ask" else None
            request = Request((decode_picture(path.read_bytes(), path.name).pixels,), asked)
            said[str(path), asked] = family.generate(model, checkpoint.processor, request, 12)
    return said


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bundle_is_compiled_and_answers_as_torch(exported, wanted, version, capfd):
    *_, bundle = exported
    with installed(version) as double:
        assert cli.run(["compile", str(bundle)]) == 0, capfd.readouterr().err
        before = len(double.executions)
        with mmedge.load(bundle) as pipeline:
            assert set(pipeline.backends.values()) == {"tensorrt"}
            for (path, asked), tokens in wanted.items():
                answer = pipeline.answer("ask" if asked else "caption", Path(path), asked, limit=12)
                assert list(answer.tokens) == tokens
        assert len(double.executions) > before


def test_an_engine_that_computes_something_else_is_refused_by_how_much_and_where(exported, tmp_path, capfd):
    *_, made = exported
    bundle = shutil.copytree(made, tmp_path / "bundle")
    with installed("10.3", spoil=0.5):
        assert cli.run(["compile", str(bundle)]) == 7
    shown = capfd.readouterr().err
    assert "cosine" in shown or "the bound is" in shown
    with installed("10.3"), pytest.raises(mmedge.MmedgeError):
        mmedge.load(bundle, backend="tensorrt")
