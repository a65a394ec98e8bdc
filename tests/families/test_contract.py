"""Every family, with every architecture it names: exported from a tiny random checkpoint, the bundle answers on every
engine as `generate` of `transformers` does on the checkpoint, for pictures and texts that the trace never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mmedge
from mmedge.core import find
from mmedge.core.bundle import open_bundle
from mmedge.core.family import Family, Request
from mmedge.export.agree import TorchSession
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint
from mmedge.media.image import decode_picture

TARGETS = ("cpu", "jetson")
"""With a cache that grows, and with one of fixed length."""
CASES = [
    (name, index, target)
    for name in find.names("families")
    if not (Path(__file__).parent / "checkpoints" / f"{name}.py").exists()  # these have tests of conversations
    for index in range(len(find.family(name).tiny))
    for target in TARGETS
]
ENGINES = ("onnxruntime", "openvino")
TEXTS = ("what is it?", "a", "ÄÖ — 北京 [SEP] 🙂", "how many are there ?")


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0]}-{find.family(case[0]).architectures[case[1]]}-{case[2]}"
)
def exported(request, tiny_checkpoint, tmp_path_factory) -> tuple[Family, Path, Path]:
    name, index, target = request.param
    family, work = find.family(name), tmp_path_factory.mktemp(name)
    checkpoint = tiny_checkpoint(index, work / "checkpoint")
    export(str(checkpoint), output=work / "bundle", target=target, precision="float32")
    return family, checkpoint, work / "bundle"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_answers_are_those_of_generate(exported, engine, pictures):
    family, folder, bundle = exported
    checkpoint = read_checkpoint(folder)
    model = load_model(checkpoint)
    different = set()
    with mmedge.load(bundle, backend=engine) as pipeline:
        for path, text in zip(pictures[2:6], TEXTS, strict=True):
            for task in pipeline.tasks:
                asked = text if task == "ask" else None
                # The checkpoint's own tokenizer takes `[SEP]` in a text for the token; we never do.
                plain = text.replace("[SEP]", "sep") if asked else None
                request = Request((decode_picture(path.read_bytes(), path.name).pixels,), plain)
                want = family.generate(model, checkpoint.processor, request, 12)
                answer = pipeline.answer(task, path, plain, limit=12)
                assert list(answer.tokens) == want
                assert answer.text == pipeline.tokenizer.decode(want).strip()
                different.add(tuple(want))
    assert len(different) > 2, "a model that always says the same shows nothing"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_every_graph_gives_the_numbers_of_its_component(exported, engine):
    """Also for lengths and a past that differ from the traced ones."""
    family, folder, bundle = exported
    checkpoint = read_checkpoint(folder)
    model = load_model(checkpoint)
    generator = np.random.default_rng(1)
    with mmedge.load(bundle, backend=engine) as pipeline:
        for component in family.components(checkpoint.config):
            torch_session, session = TorchSession(component, model), pipeline.engine.sessions[component.name]
            for lengths in ((5, 1, 1), (1, 3), (9,)):
                held = {
                    port.name: _values(port, generator, 6)
                    for port in component.inputs
                    if component.cache and "." in port.name
                }
                torch_session.reset(held)
                session.reset(held)
                for feeds in _steps(component, lengths, generator, held):
                    want, got = torch_session.run(feeds), session.run(feeds)
                    for name in want:
                        np.testing.assert_allclose(got[name], want[name], atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_preprocessing_is_the_checkpoints_own(exported):
    *_, bundle = exported
    assert open_bundle(bundle).manifest.preprocess_max_abs <= 2 / 255


def _steps(component, lengths, generator, held):
    """Feeds of one answer: runs of the given lengths, at growing positions."""
    start = 0
    for length in lengths:
        feeds = {port.name: _values(port, generator, length) for port in component.inputs if port.name not in held}
        if "position_ids" in feeds:
            feeds["position_ids"] = np.arange(start, start + length)[None]
        start += length
        yield feeds


def _values(port, generator, length):
    shape = [size if isinstance(size, int) else length for size in port.shape]
    if port.dtype == "int64":
        return generator.integers(4, 60, shape)
    return generator.normal(size=shape).astype(np.float32)
