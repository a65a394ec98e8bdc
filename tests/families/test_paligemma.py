"""PaliGemma, of both generations: exported from a tiny random checkpoint, it answers as `generate` of `transformers`
does, also where a prompt or an answer is longer than the window of the second; and all of a prompt sees all of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mmedge
from mmedge.core.family import Request, Turn
from mmedge.errors import InputError
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint
from mmedge.families import _decoder_only as shared
from mmedge.families.paligemma import CAPTION, FAMILY, QUESTION, inputs_of, told
from mmedge.runtime.decode import read_answer, read_prompt

ENGINES = ("onnxruntime", "openvino")
LIMIT = 32
WINDOW = FAMILY.tiny[1]["text_config"]["sliding_window"]


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Soft blots of colour."""
    generator = np.random.default_rng(seed)
    blots = generator.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), np.uint8)
    return np.asarray(Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC))


PORTRAIT, LANDSCAPE = picture(90, 160, 1), picture(200, 90, 2)
TINY, HUGE, SQUARE = picture(5, 3, 3), picture(900, 700, 4), picture(32, 32, 5)
REQUESTS = {
    "caption of a portrait": Request((PORTRAIT,)),
    "caption of a landscape": Request((LANDSCAPE,)),
    "caption of a tiny picture": Request((TINY,)),
    "caption of a huge picture": Request((HUGE,)),
    "question": Request((SQUARE,), "What is it?"),
    "short question": Request((SQUARE,), "Why?"),
    "three pictures": Request((PORTRAIT, LANDSCAPE, SQUARE), "Which is the largest?"),
    "caption of two": Request((SQUARE, TINY)),
    "unicode": Request((SQUARE,), "Wo ist das? 北京 — 🙂 naïve\nnew line"),
    "spaces": Request((SQUARE,), "  What   is it ? "),
    "another language": Request((PORTRAIT,), "caption de"),
    "detection": Request((LANDSCAPE,), "detect cat ; dog"),
    "places as tokens": Request((LANDSCAPE,), "what is at <loc0012><loc0340>?"),
    "long question": Request((HUGE,), "What is the one thing that nobody would see at first sight in here, and why?"),
}


def make_checkpoint(index: int, folder: Path):
    spec = importlib.util.spec_from_file_location("checkpoint", Path(__file__).parent / "checkpoints/paligemma.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return read_checkpoint(module.make(FAMILY.tiny[index], folder))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(1, tmp_path_factory.mktemp("paligemma") / "checkpoint")


@pytest.fixture(scope="module", params=[(0, "cpu"), (1, "cpu"), (1, "jetson")], ids=["1-cpu", "2-cpu", "2-jetson"])
def exported(request, tmp_path_factory):
    index, target = request.param
    work = tmp_path_factory.mktemp("paligemma")
    checkpoint = make_checkpoint(index, work / "checkpoint")
    export(str(checkpoint.folder), output=work / "bundle", target=target, precision="float32")
    return checkpoint, load_model(checkpoint), work / "bundle"


@pytest.mark.parametrize(
    ("text", "task"),
    [
        (None, CAPTION),
        ("What is it?", f"{QUESTION}What is it?"),
        ("caption de", "caption de"),
        ("answer fr Où est-ce ?", "answer fr Où est-ce ?"),
        ("detect cat ; dog", "detect cat ; dog"),
        ("ocr", "ocr"),
        ("ocr is what?", f"{QUESTION}ocr is what?"),
        ("describe the room", f"{QUESTION}describe the room"),
    ],
)
def test_a_text_that_is_no_task_is_a_question(text, task):
    assert "".join(told(text)) == task


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(text="What is it?"), "there is none"),
        (Request((SQUARE,), "And now?", (Turn((), "Hello", "Yes"),)), "a conversation"),
        (Request(frames=(SQUARE,)), "not at videos"),
    ],
    ids=["no picture", "two turns", "video"],
)
def test_what_it_cannot_answer_is_refused(checkpoint, request_, message):
    with pytest.raises(InputError, match=message):
        FAMILY.prepare(checkpoint.config, checkpoint.tokenizer, request_)


def test_tokens_and_pixels_are_those_of_the_processor(checkpoint):
    for name, request in REQUESTS.items():
        prompt, want = (
            FAMILY.prepare(checkpoint.config, checkpoint.tokenizer, request),
            inputs_of(checkpoint.processor, request),
        )
        assert prompt.tokens.tolist() == want["input_ids"][0].tolist(), name
        assert (want["token_type_ids"] == 0).all(), "all of the prompt is what sees itself"
        for look, pixels in zip(prompt.looks, want["pixel_values"].numpy(), strict=True):
            np.testing.assert_array_equal(look["pixel_values"][0], pixels, err_msg=name)


def test_prompts_are_shorter_and_longer_than_the_window(checkpoint):
    prompts = [FAMILY.prepare(checkpoint.config, checkpoint.tokenizer, request) for request in REQUESTS.values()]
    lengths = [len(prompt.tokens) for prompt in prompts]
    assert min(lengths) < WINDOW < min(lengths) + LIMIT and sum(length > WINDOW for length in lengths) > 3


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_tokens_are_those_of_generate(exported, engine):
    checkpoint, model, bundle = exported
    answers = {}
    with mmedge.load(bundle, backend=engine) as pipeline:
        for name, request in REQUESTS.items():
            answers[name] = FAMILY.generate(model, checkpoint.processor, request, LIMIT)
            got = [piece.token for piece in pipeline.stream(pipeline.prepare(request), limit=LIMIT)]
            assert [token for token in got if token is not None] == answers[name], name
    assert len({tuple(answer) for answer in answers.values()}) > len(REQUESTS) / 2, (
        "a model that says the same shows nothing"
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_special_tokens_that_are_typed_stay_text(exported, engine):
    """The checkpoint's own tokenizer would take them for what they look like; so `generate` is given our tokens."""
    checkpoint, model, bundle = exported
    request = Request((LANDSCAPE,), "What is <image> and <eos>?")
    with mmedge.load(bundle, backend=engine) as pipeline:
        prompt = pipeline.prepare(request)
        assert (prompt.tokens == shared.image_token_id(checkpoint.config)).sum() == len(prompt.insertions[0].places)
        ids = torch.from_numpy(prompt.tokens)[None]
        pixels = torch.from_numpy(prompt.looks[0]["pixel_values"])
        kinds = {"attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        written = model.generate(input_ids=ids, pixel_values=pixels, **kinds, max_new_tokens=LIMIT, do_sample=False)
        got = [piece.token for piece in pipeline.stream(prompt, limit=LIMIT) if piece.token is not None]
        assert got == shared.until_stop(model, written[0][len(prompt.tokens) :].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["caption of a portrait", "three pictures"])
def test_every_token_of_a_long_answer_has_the_logits_of_the_model(exported, name):
    checkpoint, model, bundle = exported
    request = REQUESTS[name]
    answer = np.random.default_rng(3).integers(10, 1500, WINDOW + 8)
    past, wanted = None, inputs_of(checkpoint.processor, request)
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        prompt = pipeline.prepare(request)
        pipeline.engine.begin(pipeline.engine.encode(prompt))
        readings = [read_prompt(prompt), *(read_answer(prompt, answer[at : at + 1], at) for at in range(len(answer)))]
        for at, reading in enumerate(readings):
            with torch.inference_mode():
                made = model(**wanted, past_key_values=past, use_cache=True)
            got = pipeline.engine.step(reading)
            np.testing.assert_allclose(got, made.logits[0, -1].numpy(), atol=1e-4, err_msg=f"token {at}")
            past, wanted = made.past_key_values, {"input_ids": torch.from_numpy(answer[at : at + 1])[None]}


@pytest.mark.slow
def test_every_token_of_a_prompt_sees_the_last(exported):
    """Its row is turned around: without blocks no other token may tell, with them every one must."""
    *_, bundle = exported
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        prompt = pipeline.prepare(REQUESTS["three pictures"])
        assert len(prompt.tokens) > WINDOW
        for blocks, told in ((True, len(prompt.tokens)), (False, 1)):
            plain, changed = (logits_everywhere(pipeline, prompt, blocks, sign) for sign in (1, -1))
            assert (np.abs(changed - plain).max(-1) > 1e-5).sum() == told


def logits_everywhere(pipeline, prompt, blocks: bool, sign: int) -> np.ndarray:
    """After every token of the prompt, ``[length, vocabulary]``; with the last row times ``sign``."""
    engine, sessions = pipeline.engine, pipeline.engine.sessions
    rows = sessions["embed"].run({"input_ids": prompt.tokens[None]})["inputs_embeds"].copy()
    rows[0, prompt.insertions[0].places] = engine.encode(prompt)["image_features"]
    rows[0, -1] *= sign
    feeds = {
        "inputs_embeds": rows,
        "position_ids": prompt.positions,
        "logits_at": np.arange(len(prompt.tokens)),
        "blocks": prompt.along["blocks"] * blocks,
    }
    sessions["decoder"].reset({})
    return sessions["decoder"].run(feeds, ["logits"])["logits"][0]
