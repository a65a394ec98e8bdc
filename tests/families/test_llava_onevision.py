"""How LLaVA-OneVision cuts pictures of any size and lays out what it sees, against the model's own code."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from mmedge.core.bundle import Graph
from mmedge.core.family import Prompt, Request, Turn
from mmedge.errors import BundleError, ModelError
from mmedge.families import _decoder_only as shared
from mmedge.families._any_resolution import best_resolution
from mmedge.families.llava_onevision import FAMILY, TILED, arrange, layout, tiles_of
from mmedge.media.image import preprocess
from mmedge.runtime.decode import decode
from mmedge.runtime.engine import Engine, arranging

SIZES = (
    (1, 1), (1, 900), (900, 1), (384, 384), (385, 384), (64, 2000), (2000, 64), (480, 640), (768, 1024), (1080, 1920),
    (3000, 4000), (97, 61), (500, 333), (2304, 2304), (2303, 2304), (1000, 1001), (7, 3000),
)  # fmt: skip
"""Height and width."""

SIDE, PATCHES, WIDTH = 384, 27, 4
"""Of published checkpoints, but for the width."""

SIDES = range(SIDE, 7 * SIDE, SIDE)
CONFIG = {
    "model": {
        "vision_config": {"image_size": SIDE, "patch_size": 14, "model_type": "siglip_vision_model"},
        "vision_feature_select_strategy": "full",
        "vision_aspect_ratio": "anyres_max_9",
    },
    "image": {
        "size": {"height": SIDE, "width": SIDE},
        "image_grid_pinpoints": [[height, width] for height in SIDES for width in SIDES],
    },
}


def seen(count: int) -> list[np.ndarray]:
    """Rows of so many squares, and the one that ends a line."""
    generator = np.random.default_rng(count)
    squares = [generator.standard_normal((PATCHES**2, WIDTH), np.float32) for _ in range(count)]
    return [np.concatenate([square, np.full((1, WIDTH), 9, np.float32)]) for square in squares]


def arranged(squares: list[np.ndarray], size: tuple[int, int] | None) -> np.ndarray:
    looks = [{"pixel_values": np.zeros(0)} for _ in squares]
    if size:
        looks[0][TILED] = np.array(size)
    prompt = Prompt({}, np.zeros(0, np.int64), (), 1, tuple(looks))
    return arrange(CONFIG, prompt, [{shared.FEATURES: square} for square in squares])[shared.FEATURES]


@pytest.mark.parametrize("size", SIZES)
def test_rows_lie_as_the_model_puts_them(size):
    import torch
    from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionModel

    squares = seen(1 + int(np.prod(layout(CONFIG, size).tiles)))
    vision = SimpleNamespace(image_size=SIDE, patch_size=14)
    own = SimpleNamespace(
        config=SimpleNamespace(vision_config=vision, image_grid_pinpoints=CONFIG["image"]["image_grid_pinpoints"])
    )
    rows = torch.from_numpy(np.stack(squares)[:, :-1])
    want, _ = LlavaOnevisionModel.pack_image_features(
        own, [rows], [list(size)], torch.full((WIDTH,), 9.0), CONFIG["model"]["vision_aspect_ratio"]
    )
    np.testing.assert_allclose(arranged(squares, size), want[0].numpy(), atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
def test_there_are_as_many_rows_as_the_processor_counts(size):
    from transformers import LlavaOnevisionProcessor

    own = SimpleNamespace(
        num_image_tokens=PATCHES**2,
        vision_aspect_ratio="anyres_max_9",
        image_processor=SimpleNamespace(image_grid_pinpoints=CONFIG["image"]["image_grid_pinpoints"]),
    )
    own._get_unpadded_features = lambda *sizes: LlavaOnevisionProcessor._get_unpadded_features(own, *sizes)
    lines, columns = layout(CONFIG, size).size
    want = LlavaOnevisionProcessor._get_number_of_features(own, *size, SIDE, SIDE)
    assert PATCHES**2 + lines * (columns + 1) == want


def test_the_size_of_the_tiles_is_the_one_that_the_processor_chooses():
    from transformers.image_processing_utils import select_best_resolution

    offered = CONFIG["image"]["image_grid_pinpoints"]
    for size in (*SIZES, *np.random.default_rng(0).integers(1, 3000, (500, 2)).tolist()):
        assert best_resolution(tuple(size), offered) == select_best_resolution(size, offered)


def test_several_pictures_are_rows_of_one_square_each_with_an_end():
    squares = seen(3)
    np.testing.assert_array_equal(arranged(squares, None), np.concatenate(squares))


def test_tiles_line_up_to_the_picture():
    generator = np.random.default_rng(0)
    picture = generator.integers(0, 256, (88, 132, 3), np.uint8)
    settings = {
        "size": {"height": 44, "width": 44},
        "image_grid_pinpoints": [[88, 132], [132, 132]],
        "resample": 3,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": False,
    }
    _, *tiles = tiles_of(picture, settings)
    lines = [np.concatenate(tiles[first : first + 3], axis=3) for first in (0, 3)]
    whole = preprocess(picture, {"do_resize": False, "do_rescale": True, "do_normalize": False})
    np.testing.assert_array_equal(np.concatenate(lines, axis=2), whole)


def test_another_way_of_keeping_rows_is_refused_by_name():
    config = CONFIG | {"model": CONFIG["model"] | {"vision_aspect_ratio": "anyres"}}
    with pytest.raises(ModelError, match="`vision_aspect_ratio` = `anyres`"):
        layout(config, (44, 44))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint and its model."""
    from mmedge.export.load import load_model, read_checkpoint

    spec = spec_from_file_location("made", Path(__file__).parent / "checkpoints" / "llava_onevision.py")
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    checkpoint = read_checkpoint(made.make(FAMILY.tiny[0], tmp_path_factory.mktemp("tiny")))
    return checkpoint, load_model(checkpoint)


FRAMES = tuple(np.random.default_rng(7).integers(0, 256, (3, 40, 60, 3), np.uint8))
PICTURE = np.random.default_rng(8).integers(0, 256, (70, 90, 3), np.uint8)
VIDEOS = {
    "a video": Request(text="What happens?", frames=FRAMES),
    "one frame": Request(text="What happens?", frames=FRAMES[:1]),
    "a picture and a video": Request((PICTURE,), "What happens?", frames=FRAMES),
    "two pictures and a video": Request((PICTURE, PICTURE[:50]), "Why?", frames=FRAMES),
    "a video at last": Request((), "And now?", (Turn((PICTURE,), "What is it?", "a thing"),), FRAMES[:2]),
    "nothing but a video": Request(frames=FRAMES),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEOS)
def test_answers_about_videos_are_those_of_generate(tiny, name):
    checkpoint, model = tiny
    request = VIDEOS[name]
    prompt = FAMILY.prepare(checkpoint.config, checkpoint.tokenizer, request)
    inputs = inputs_of(checkpoint.processor, request)
    assert prompt.tokens.tolist() == inputs["input_ids"][0].tolist()
    written = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0][len(prompt.tokens) :]
    assert list(answer(checkpoint.config, model, prompt)) == shared.until_stop(model, written.tolist())


def inputs_of(processor, request: Request) -> dict:
    """As the checkpoint's processor makes them, which could resize frames with torchvision only."""
    import torch

    asked = request if request.text else replace(request, text=shared.CAPTION)
    messages = shared.messages(asked)
    messages[-1]["content"].insert(len(asked.images), {"type": "video"})
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    seen = np.concatenate([FAMILY.pixels(processor, frame)[0]["pixel_values"] for frame in asked.frames])
    text = text.replace(processor.video_token, processor.replace_video_token({"pixel_values_videos": [seen]}, 0))
    pictures = [Image.fromarray(picture) for picture in shared.pictures_of(asked)]
    made = processor.image_processor([pictures], return_tensors="pt") if pictures else {}
    before, *after = text.split(processor.image_token)
    text = before + "".join(processor.replace_image_token(made, index) + part for index, part in enumerate(after))
    return {
        **processor.tokenizer(text, return_tensors="pt"),
        **made,
        "pixel_values_videos": torch.from_numpy(seen)[None],
    }


def answer(config, model, prompt: Prompt):
    """Tokens by the family's components in torch."""
    from mmedge.export.agree import TorchSession

    components = FAMILY.components(config)
    sessions = {each.name: TorchSession(each, model) for each in components}
    graphs = [Graph(each.name, "", each.inputs, each.outputs, "float32", each.cache) for each in components]
    engine = Engine(graphs, sessions, arranging(FAMILY, config))
    engine.begin(engine.encode(prompt))
    return decode(engine.choose, prompt, limit=12)


@pytest.mark.slow
def test_frames_are_prepared_as_the_checkpoint_says_of_videos(tiny):
    checkpoint, _ = tiny
    ours = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 44, "width": 44}, "fps": 2}
    config = checkpoint.config | {"video": ours}
    look = FAMILY.prepare(config, checkpoint.tokenizer, VIDEOS["one frame"]).looks[0]["pixel_values"]
    plain = {"do_resize": True, "do_rescale": True, "do_normalize": False, "size": ours["size"], "resample": 3}
    np.testing.assert_allclose(look, preprocess(FRAMES[0], plain) * 2 - 1, atol=1e-6)


@pytest.mark.slow
def test_a_template_without_a_place_for_a_video_is_named(tiny):
    checkpoint, _ = tiny
    text = checkpoint.config["text"]
    config = checkpoint.config | {"text": text | {"chat": text["chat"] | {"video": ""}}}
    with pytest.raises(BundleError, match="no place for a video"):
        FAMILY.prepare(config, checkpoint.tokenizer, VIDEOS["a video"])
