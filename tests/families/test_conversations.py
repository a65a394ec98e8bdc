"""Every family that can be talked to: exported from a tiny random checkpoint, it answers on both engines as `generate`
of `transformers` does, for conversations and pictures that the trace never saw."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

import mmedge
from mmedge import cli
from mmedge.core import find
from mmedge.core.family import Request, Turn
from mmedge.export.agree import TorchSession
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint
from mmedge.families import _decoder_only as shared
from mmedge.runtime.pick import sampler
from mmedge.runtime.together import decode_together

CASES = [
    (name, index)
    for name in find.names("families")
    for index, tiny in enumerate(find.family(name).tiny)
    if "chat" in find.family(name).tasks({"model": tiny})
]
ENGINES = ("onnxruntime", "openvino")
LIMIT = 12


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Soft blots of colour."""
    generator = np.random.default_rng(seed)
    blots = generator.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), np.uint8)
    return np.asarray(Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC))


PORTRAIT, LANDSCAPE = picture(90, 160, 1), picture(200, 90, 2)
TINY, HUGE, SQUARE = picture(5, 3, 3), picture(900, 700, 4), picture(64, 64, 5)
REQUESTS = {
    "no picture": Request(text="What is the sum of 2 and 3?"),
    "portrait": Request((PORTRAIT,), "What is in the picture?"),
    "landscape": Request((LANDSCAPE,), "What is it?"),
    "tiny": Request((TINY,), "What is it?"),
    "huge": Request((HUGE,), "the"),
    "square": Request((SQUARE,), "Why?"),
    "three pictures": Request((PORTRAIT, LANDSCAPE, SQUARE), "Which is the largest?"),
    "pictures of equal size": Request((SQUARE, picture(64, 64, 6)), "What differs?"),
    "unicode": Request((SQUARE,), "Wo ist das? 北京 — 🙂 naïve\nnew line"),
    "two turns": Request((), "And the other?", (Turn((LANDSCAPE,), "What is it?", "a thing"),)),
    "pictures in two turns": Request((TINY,), "And now?", (Turn((SQUARE,), "What is it?", "it is a star"),)),
    "words before pictures": Request((PORTRAIT,), "this", (Turn((), "Look at the next.", "Yes"),)),
    "nothing but a picture": Request((SQUARE,)),
    "spaces": Request((SQUARE,), "  What   is it ? "),
}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def exported(request, tmp_path_factory):
    name, index = request.param
    work = tmp_path_factory.mktemp(name)
    folder = make_checkpoint(name, index, work / "checkpoint")
    export(str(folder), output=work / "bundle", target="cpu", precision="float32")
    checkpoint = read_checkpoint(folder)
    return find.family(name), checkpoint, load_model(checkpoint), work / "bundle"


def make_checkpoint(name: str, index: int, folder: Path) -> Path:
    """As ``checkpoints/<family>.py`` makes it."""
    path = Path(__file__).parent / "checkpoints" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"checkpoint_of_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make(find.family(name).tiny[index], folder)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_tokens_are_those_of_generate(exported, engine):
    family, checkpoint, model, bundle = exported
    answers = {}
    with mmedge.load(bundle, backend=engine) as pipeline:
        for name, request in REQUESTS.items():
            prompt = pipeline.prepare(request)
            want = shared.inputs_of(checkpoint.processor, request)["input_ids"][0].tolist()
            assert prompt.tokens.tolist() == want, name
            answers[name] = family.generate(model, checkpoint.processor, request, LIMIT)
            got = [piece.token for piece in pipeline.stream(prompt, limit=LIMIT) if piece.token is not None]
            assert got == answers[name], name
    assert len({tuple(answer) for answer in answers.values()}) > len(REQUESTS) / 2, (
        "a model that says the same shows nothing"
    )


@pytest.mark.slow
def test_reading_ahead_changes_no_token(exported):
    *_, bundle = exported
    with mmedge.load(bundle, backend="onnxruntime") as one, mmedge.load(bundle, look_ahead=True) as ahead:
        for request in (Request((SQUARE,), "the the the the the"), Request((TINY,), "What is it? What is it? What is")):
            assert ahead.answer("ask", request.images, request.text, limit=40).tokens == (
                one.answer("ask", request.images, request.text, limit=40).tokens
            )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_special_tokens_that_are_typed_stay_text(exported, engine):
    """The checkpoint's own tokenizer would take them for what they look like; so `generate` is given our tokens."""
    import torch

    _family, checkpoint, model, bundle = exported
    typed = f"What is {checkpoint.config['text']['image_token']} and {checkpoint.processor.tokenizer.eos_token}?"
    request, plain = Request((LANDSCAPE,), typed), Request((LANDSCAPE,), "What is it?")
    with mmedge.load(bundle, backend=engine) as pipeline:
        prompt, other = pipeline.prepare(request), pipeline.prepare(plain)
        image = shared.image_token_id(checkpoint.config)
        assert (prompt.tokens == image).sum() == (other.tokens == image).sum()
        inputs = dict(shared.inputs_of(checkpoint.processor, plain))
        inputs |= {"input_ids": torch.from_numpy(prompt.tokens)[None]}
        for name in ("attention_mask", "token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                inputs[name] = fitted(inputs[name], prompt.tokens == image, name)
        written = model.generate(**inputs, max_new_tokens=LIMIT, do_sample=False)[0][len(prompt.tokens) :]
        got = [piece.token for piece in pipeline.stream(prompt, limit=LIMIT) if piece.token is not None]
        assert got == shared.until_stop(model, written.tolist())


def fitted(old, is_image, name):
    """The mask of one prompt made that of another."""
    import torch

    if name == "attention_mask":
        return torch.ones(1, len(is_image), dtype=old.dtype)
    return torch.from_numpy(is_image.astype(np.int64))[None].to(old.dtype)


@pytest.mark.slow
def test_pictures_are_prepared_as_the_checkpoint_does(exported):
    family, checkpoint, _, bundle = exported
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        for pixels in (PORTRAIT, LANDSCAPE, TINY, HUGE, SQUARE):
            looks = pipeline.prepare(Request((pixels,), "What is it?")).looks
            wanted = family.pixels(checkpoint.processor, pixels)
            assert len(looks) == len(wanted)
            for got, want in zip(looks, wanted, strict=True):
                for name in want:
                    np.testing.assert_allclose(got[name], want[name], atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_second_question_about_a_picture_reads_only_what_is_new(exported):
    family, checkpoint, model, bundle = exported
    first = Request((LANDSCAPE,), "What is it?")
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        runs = counted(pipeline.engine.sessions)
        list(pipeline.stream(pipeline.prepare(first), limit=4))
        seen, read = len(runs["vision"]), len(runs["embed"])
        for question in ("And what else?", "Why?"):
            request = Request((), question, (Turn((LANDSCAPE,), "What is it?", "a thing"),))
            prompt = pipeline.prepare(request)
            got = [piece.token for piece in pipeline.stream(prompt, limit=LIMIT) if piece.token is not None]
            assert got == family.generate(model, checkpoint.processor, request, LIMIT)
        assert len(runs["vision"]) == seen
        shared_cache = any(graph.cache and graph.cache.shared for graph in pipeline.engine.graphs)
        assert not shared_cache or max(runs["embed"][read:]) < len(prompt.tokens)


def counted(sessions):
    """Lengths of what sessions run, from now on."""
    runs = {name: [] for name in sessions}

    def counting(name, run):
        def counted_run(feeds, outputs=None):
            runs[name].append(next(iter(feeds.values())).shape[-1])
            return run(feeds, outputs)

        return counted_run

    for name, session in sessions.items():
        session.run = counting(name, session.run)
    return runs


@pytest.mark.slow
def test_several_answers_at_once_are_those_of_one_after_the_other(exported):
    *_, bundle = exported
    shown = [PORTRAIT, LANDSCAPE, TINY, SQUARE, picture(40, 40, 7)]
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        one_by_one = [pipeline.answer("ask", each, "What is it?", limit=LIMIT) for each in shown]
        for _ in range(2):
            together = pipeline.answer_together("ask", shown, "What is it?", limit=LIMIT)
            assert [answer.tokens for answer in together] == [answer.tokens for answer in one_by_one]
            assert [answer.text for answer in together] == [answer.text for answer in one_by_one]
        assert pipeline.answer("ask", TINY, "What is it?", limit=LIMIT).tokens == one_by_one[2].tokens


@pytest.fixture
def poisoned(monkeypatch):
    """Memory that nobody has written holds no number, not what the last cache left there."""
    real = np.empty

    def empty(*arguments, **named):
        made = real(*arguments, **named)
        if made.dtype == np.float32:
            made.fill(np.nan)
        return made

    monkeypatch.setattr(np, "empty", empty)


@pytest.mark.slow
def test_one_of_several_may_end_at_once(exported, poisoned):
    *_, bundle = exported
    shown = [PORTRAIT, LANDSCAPE, SQUARE]
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        alone = [pipeline.answer("ask", each, "What is it?", limit=LIMIT).tokens for each in shown]
        if not pipeline.goes_together:
            return
        prompts = [pipeline.prepare(Request((each,), "What is it?")) for each in shown]
        prompts[1] = replace(prompts[1], stop=(alone[1][0],))
        values = [pipeline.engine.encode(prompt) for prompt in prompts]
        found = decode_together(pipeline.engine, prompts, values, [LIMIT] * 3)
        assert [tuple(tokens) for tokens in found] == [alone[0], (), alone[2]]
        pipeline.answer_together("ask", shown[1:], "What is it?", limit=1)
        assert pipeline.answer("ask", shown[0], "What is it?", limit=LIMIT).tokens == alone[0]


@pytest.mark.slow
def test_each_picture_of_a_folder_is_answered_where_several_are_at_once(exported, tmp_path, capfd):
    """The same one twice, and one that is none."""
    *_, bundle = exported
    files = [tmp_path / name for name in ("a.png", "b.png", "broken.png")]
    Image.fromarray(SQUARE).save(files[0])
    Image.fromarray(TINY).save(files[1])
    files[2].write_bytes(b"no picture")
    given = [files[place] for place in (0, 0, 2, 1)]
    code = cli.run(
        ["caption", str(bundle), *map(str, given), "--json", "--backend", "onnxruntime", "--max-tokens", "3"]
    )
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert (code, [row["picture"] for row in rows]) == (3, [str(file) for file in given])
    assert rows[0]["tokens"] == rows[1]["tokens"] and "error" in rows[2] and "tokens" in rows[3]


@pytest.mark.slow
def test_a_drawn_answer_changes_no_other(exported, poisoned):
    """Tokens are chosen in the graph for one and outside for the other, on one cache."""
    *_, bundle = exported
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        shown = [PORTRAIT, SQUARE]
        first = [pipeline.answer("ask", each, "What is it?", limit=LIMIT).tokens for each in shown]
        for each, tokens in zip(shown, first, strict=True):
            pipeline.answer("ask", LANDSCAPE, "What is it?", limit=LIMIT, pick=sampler(0.5, seed=0))
            assert pipeline.answer("ask", each, "What is it?", limit=LIMIT).tokens == tokens


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_decoder_gives_the_numbers_of_its_component(exported, engine):
    """For lengths and pasts that were not traced, at any place of a step, and where tokens may see later ones."""
    family, checkpoint, model, bundle = exported
    component = family.components(checkpoint.config)[-1]
    generator = np.random.default_rng(1)
    with mmedge.load(bundle, backend=engine) as pipeline:
        torch_session, session = TorchSession(component, model), pipeline.engine.sessions[component.name]
        for lengths in ((5, 1, 1), (1, 3), (40,)):
            torch_session.reset()
            session.reset()
            start = 0
            for length in lengths:
                feeds = {port.name: values(port, generator, length, start) for port in component.inputs}
                want, got = torch_session.run(feeds), session.run(feeds, ["logits"])
                np.testing.assert_allclose(got["logits"], want["logits"], atol=3e-4, rtol=1e-3)
                start += length


def values(port, generator, length, start):
    """Of an input of a step that begins at the place ``start``."""
    shape = [size if isinstance(size, int) else length for size in port.shape]
    if port.name == "position_ids":
        return np.broadcast_to(np.arange(start, start + length), shape).copy()
    if port.name == "logits_at":
        return np.array([length - 1, generator.integers(0, length)])
    if port.dtype == "int64":
        return generator.integers(0, 3, shape)
    return generator.normal(size=shape).astype(np.float32)


@pytest.mark.slow
def test_causal_decoders_have_a_form_and_no_others(exported):
    """Without one, what is said here of several answers at once and of reading ahead would be said of nothing."""
    family, checkpoint, _, bundle = exported
    causal = family.components(checkpoint.config)[-1].causal
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        assert pipeline.goes_together == pipeline.engine.looks_ahead == causal


@pytest.mark.slow
def test_openvino_joins_attention_and_its_state(exported):
    """Apart, a step takes twice as long."""
    family, checkpoint, _, bundle = exported
    cache = family.components(checkpoint.config)[-1].cache
    with mmedge.load(bundle, backend="openvino") as pipeline:
        compiled = pipeline.engine.sessions["decoder"]._request.get_compiled_model()
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()]
    assert kinds.count("ScaledDotProductAttention") == cache.layers
