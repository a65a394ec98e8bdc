"""What is particular to Gemma 3: windows, and pictures whose rows see each other, with either kind of cache."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import mmedge
from mmedge.core.family import Request
from mmedge.errors import InputError, ModelError
from mmedge.export.build import export
from mmedge.export.load import load_model, read_checkpoint
from mmedge.families import _decoder_only as shared
from mmedge.families.gemma3 import FAMILY, blocks_of
from mmedge.runtime.decode import Reading, read_answer, read_prompt

PICTURES = tuple(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8) for seed in range(2))
WINDOW = FAMILY.tiny[0]["text_config"]["sliding_window"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    spec = importlib.util.spec_from_file_location("checkpoint", Path(__file__).parent / "checkpoints/gemma3.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return read_checkpoint(module.make(FAMILY.tiny[0], tmp_path_factory.mktemp("gemma3") / "checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="module", params=["cpu", "jetson"])
def pipeline(request, checkpoint):
    bundle = checkpoint.folder.with_name(request.param)
    export(str(checkpoint.folder), output=bundle, target=request.param, precision="float32")
    with mmedge.load(bundle, backend="onnxruntime") as pipeline:
        yield pipeline


def test_rows_of_a_picture_are_a_block_and_nothing_else_is():
    assert blocks_of(np.array([5, 7, 7, 1, 7, 2, 7, 7]), 7).tolist() == [[0, 1, 1, 0, 2, 0, 3, 3]]


def test_videos_are_refused(checkpoint):
    with pytest.raises(InputError, match="not at videos"):
        FAMILY.prepare(checkpoint.config, checkpoint.tokenizer, Request(frames=PICTURES, text="What is it?"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"use_bidirectional_attention": True}, "in both directions"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "of the kind `yarn`"),
    ],
)
def test_a_text_part_of_another_kind_is_refused(changed, message):
    model = {**FAMILY.tiny[0], "text_config": {**FAMILY.tiny[0]["text_config"], **changed}}
    with pytest.raises(ModelError, match=message):
        FAMILY.components({"model": model, "image": {}})


def test_pictures_to_be_cut_into_pieces_are_refused():
    with pytest.raises(ModelError, match="do_pan_and_scan"):
        FAMILY.components({"model": FAMILY.tiny[0], "image": {"do_pan_and_scan": True}})


@pytest.mark.slow
@pytest.mark.parametrize("pictures", [0, 1, 2])
def test_every_token_of_an_answer_that_leaves_the_window_has_the_logits_of_the_model(
    pipeline, checkpoint, model, pictures
):
    request = Request(PICTURES[:pictures], "Why?")
    prompt = pipeline.prepare(request)
    assert (len(prompt.tokens) < WINDOW) == (pictures == 0)
    answer = np.random.default_rng(3).integers(10, 400, WINDOW + 8)
    inputs = shared.inputs_of(checkpoint.processor, request)
    pipeline.engine.begin(pipeline.engine.encode(prompt))
    readings = [read_prompt(prompt), *(read_answer(prompt, answer[at : at + 1], at) for at in range(len(answer)))]
    past, wanted = None, dict(inputs)
    for at, reading in enumerate(readings):
        with torch.inference_mode():
            made = model(**wanted, past_key_values=past, use_cache=True)
        got = pipeline.engine.step(reading)
        np.testing.assert_allclose(got, made.logits[0, -1].numpy(), atol=1e-4, err_msg=f"token {at}")
        past = made.past_key_values
        wanted = {"input_ids": torch.from_numpy(answer[at : at + 1])[None]}


@pytest.mark.slow
def test_a_row_sees_the_later_rows_of_its_picture_and_none_of_the_next(pipeline):
    """Which logits change where a row is another: no row but those of the same block may tell it before its place."""
    prompt = pipeline.prepare(Request(PICTURES, "Why?"))
    first, second = (np.flatnonzero(prompt.along["blocks"][0] == block) for block in (1, 2))
    plain = logits_everywhere(pipeline, prompt)
    changed = logits_everywhere(pipeline, prompt, at=second[-1])
    told = np.flatnonzero(np.abs(changed - plain).max(-1) > 1e-3)
    assert told[0] == second[0] and set(second) <= set(told)
    assert not set(first) & set(told)
    causal = logits_everywhere(pipeline, prompt, blocks=False)
    told = np.flatnonzero(np.abs(logits_everywhere(pipeline, prompt, blocks=False, at=second[-1]) - causal).max(-1) > 0)
    assert told[0] == second[-1]


def logits_everywhere(pipeline, prompt, *, blocks: bool = True, at: int | None = None) -> np.ndarray:
    """After every token of the prompt, ``[length, vocabulary]``; with the row ``at`` turned around."""
    engine, sessions = pipeline.engine, pipeline.engine.sessions
    rows = sessions["embed"].run({"input_ids": prompt.tokens[None]})["inputs_embeds"].copy()
    rows[0, prompt.insertions[0].places] = engine.encode(prompt)["image_features"]
    if at is not None:
        rows[0, at] *= -1
    reading: Reading = read_prompt(prompt)
    feeds = {
        "inputs_embeds": rows,
        "position_ids": reading.positions,
        "logits_at": np.arange(len(prompt.tokens)),
        "blocks": prompt.along["blocks"] * blocks,
    }
    sessions["decoder"].reset({})
    return sessions["decoder"].run(feeds, ["logits"])["logits"][0]
