"""Families that read the frames of a video as pictures: the numbers and the answers of `transformers`.

What is compared is what the checkpoint's own processor makes of the same frames, which are sampled already: its code
from the chat template to the tensors, the video processor's too. torchvision is missing here, whose functions for
scaling and normalising are torch's own operators (`checkpoints/_videos.py`).
"""

from __future__ import annotations

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.video_utils import VideoMetadata

import mmedge
from mmedge import cli
from mmedge.core import find
from mmedge.core.family import Family, Request, Turn
from mmedge.errors import BundleError
from mmedge.export.build import export
from mmedge.export.load import Checkpoint, load_model, read_checkpoint
from mmedge.families import _decoder_only as shared

CASES = [(name, index) for name in ("smolvlm", "internvl") for index in range(len(find.family(name).tiny))]
LIMIT = 12
TICKS = 4
"""Frames a second of the films that the frames with known times are taken from."""


def film(frames: int, height: int, width: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Soft blots of colour that change."""
    blots = np.random.default_rng(seed).integers(0, 256, (frames, 4, 5, 3), np.uint8)
    return tuple(np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC)) for each in blots)


PICTURE, OTHER = film(1, 70, 90, 8)[0], film(1, 33, 20, 9)[0]
VIDEOS = {
    "three frames": Request(text="What happens?", frames=film(3, 40, 60, 1)),
    "one tall frame": Request(text="What is it?", frames=film(1, 150, 41, 2)),
    "many small frames": Request(text="the", frames=film(23, 9, 7, 3)),
    "known times": Request(text="And?", frames=film(5, 100, 100, 4), frame_seconds=(0.0, 1.5, 59.75, 61.25, 3725.0)),
    "a picture and a video": Request((PICTURE,), "What happens?", frames=film(2, 64, 64, 5)),
    "two pictures and a video": Request((PICTURE, OTHER), "Why?", frames=film(3, 32, 32, 6)),
    "a video at last": Request((), "And now?", (Turn((PICTURE,), "What is it?", "a thing"),), film(4, 31, 97, 7)),
    "nothing but a video": Request(frames=film(2, 300, 200, 8)),
}


class Made(NamedTuple):
    """A tiny checkpoint, whose processor reads videos, and its bundle."""

    family: Family
    checkpoint: Checkpoint
    model: torch.nn.Module
    bundle: Path


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def exported(request, tmp_path_factory):
    name, index = request.param
    work = tmp_path_factory.mktemp(name)
    folder = module(name).make(find.family(name).tiny[index], work / "checkpoint")
    export(str(folder), output=work / "bundle", target="cpu", precision="float32")
    checkpoint = read_checkpoint(folder)
    with pytest.MonkeyPatch.context() as patch:
        checkpoint.processor.video_processor = module("_videos").processor_of(name, folder, patch)
        yield Made(find.family(name), checkpoint, load_model(checkpoint), work / "bundle")


def module(name: str) -> ModuleType:
    """Of ``checkpoints``."""
    spec = spec_from_file_location(f"checkpoint_of_{name}", Path(__file__).parent / "checkpoints" / f"{name}.py")
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def inputs_of(processor, request: Request) -> dict[str, torch.Tensor]:
    """What the checkpoint's processor makes of a conversation.

    SmolVLM's gives the tiles of pictures and the frames one name, of which the frames are left: the tiles are put
    before them.
    """
    asked = Request(request.images, request.text or shared.CAPTION, request.earlier, request.frames)
    messages = shared.messages(asked)
    messages[-1]["content"].insert(len(asked.images), {"type": "video"})
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    pictures = [Image.fromarray(picture) for picture in shared.pictures_of(asked)]
    indices = [round(second * TICKS) for second in request.frame_seconds]
    told = [VideoMetadata(len(asked.frames), fps=TICKS, frames_indices=indices)] if indices else None
    frames = {"videos": [np.stack(asked.frames)], "video_metadata": told}
    inputs = dict(processor(text=text, images=pictures or None, return_tensors="pt", **frames))
    inputs.pop("pixel_attention_mask", None)
    if pictures and inputs["pixel_values"].ndim == 5:
        tiles = processor.image_processor([pictures], return_tensors="pt")["pixel_values"]
        inputs["pixel_values"] = torch.cat([tiles, inputs["pixel_values"]], 1)
    return inputs


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEOS)
def test_tokens_and_pixels_are_those_of_the_checkpoints_processor(exported, name):
    """Frames within two levels of 255, as torch and Pillow scale to other bytes; tiles of pictures bit for bit."""
    request, processor = VIDEOS[name], exported.checkpoint.processor
    prompt = exported.family.prepare(exported.checkpoint.config, exported.checkpoint.tokenizer, request)
    want = inputs_of(processor, request)
    assert prompt.tokens.tolist() == want["input_ids"][0].tolist()
    got = np.concatenate([look["pixel_values"] for look in prompt.looks])
    pixels = want["pixel_values"].numpy().reshape(got.shape)
    first = len(got) - len(request.frames)
    np.testing.assert_array_equal(got[:first], pixels[:first])
    level = 1 / 255 / np.min(processor.video_processor.image_std)
    np.testing.assert_allclose(got[first:], pixels[first:], rtol=0, atol=2.01 * level)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_answers_are_those_of_generate(exported, engine):
    """`generate` is given what the checkpoint's own processor makes of the frames."""
    answers = {}
    with mmedge.load(exported.bundle, backend=engine) as pipeline:
        for name, request in VIDEOS.items():
            inputs = inputs_of(exported.checkpoint.processor, request)
            written = exported.model.generate(**inputs, max_new_tokens=LIMIT, do_sample=False)[0]
            answers[name] = shared.until_stop(exported.model, written[inputs["input_ids"].shape[1] :].tolist())
            prompt = pipeline.prepare(request)
            got = [piece.token for piece in pipeline.stream(prompt, limit=LIMIT) if piece.token is not None]
            assert got == answers[name], name
    assert len({tuple(answer) for answer in answers.values()}) > len(VIDEOS) / 2, (
        "a model that says the same shows nothing"
    )


@pytest.mark.slow
def test_a_film_is_asked_about_by_its_name(exported, tmp_path, capfd):
    first, *others = [Image.fromarray(frame) for frame in film(6, 40, 60, 1)]
    first.save(tmp_path / "walk.png", save_all=True, append_images=others, duration=500)
    request = Request((), "What happens?", (), film(6, 40, 60, 1)[::2], (0.0, 1.0, 2.0))
    asked = ["ask", str(exported.bundle), str(tmp_path / "walk.png"), "What happens?"]
    assert cli.run([*asked, "--frames", "3", "--max-tokens", str(LIMIT), "--json"]) == 0
    with mmedge.load(exported.bundle) as pipeline:
        pieces = list(pipeline.stream(pipeline.prepare(request), limit=LIMIT))
    tokens = [piece.token for piece in pieces if piece.token is not None]
    assert json.loads(capfd.readouterr().out)["tokens"] == tokens


@pytest.mark.slow
def test_a_template_without_a_place_for_a_video_is_named(exported):
    checkpoint = exported.checkpoint
    text = checkpoint.config["text"]
    config = checkpoint.config | {"text": text | {"chat": text["chat"] | {"video": ""}}}
    with pytest.raises(BundleError, match="no place for a video"):
        exported.family.prepare(config, checkpoint.tokenizer, VIDEOS["three frames"])


@pytest.mark.slow
def test_a_video_token_that_is_typed_stays_text(exported):
    checkpoint = exported.checkpoint
    typed = f"What is {checkpoint.config['text']['video_token']}?"
    prompt = exported.family.prepare(checkpoint.config, checkpoint.tokenizer, Request(text=typed))
    assert not prompt.looks
    assert shared.image_token_id(checkpoint.config) not in prompt.tokens


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(find.family("idefics3").tiny)))
def test_a_model_that_was_never_shown_a_video_says_so(index, tmp_path):
    """SmolVLM's elder, which has no token for one."""
    elder = find.family("idefics3")
    checkpoint = read_checkpoint(module("idefics3").make(elder.tiny[index], tmp_path / "checkpoint"))
    with pytest.raises(BundleError, match="no place for a video"):
        elder.prepare(checkpoint.config, checkpoint.tokenizer, VIDEOS["three frames"])
