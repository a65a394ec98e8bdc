"""What the Qwen models that see are told about pictures, against `transformers`."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize as smart_resize_together
from transformers.video_utils import VideoMetadata
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_window_index

from mmedge.core import find
from mmedge.core.family import Prompt, Request, Turn
from mmedge.core.ports import Span
from mmedge.errors import InputError
from mmedge.export.agree import TorchSession
from mmedge.export.layout import plan_graph
from mmedge.export.load import load_model, read_checkpoint
from mmedge.families import _decoder_only as shared
from mmedge.families import _qwen_picture as picture
from mmedge.families import _qwen_vl as qwen
from mmedge.families import _video, qwen2_5_vl, qwen3_vl
from mmedge.runtime.decode import decode
from mmedge.runtime.engine import Engine, arranging

WORD, IMAGE = 1, 5
SIDES = st.integers(1, 4000)


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def model(request):
    tiny = find.family(request.param).tiny[0]
    return getattr(transformers, tiny["architectures"][0])(AutoConfig.for_model(**tiny)).model


@pytest.mark.parametrize(
    "grids",
    [(), ((3, 7),), ((1, 1),), ((2, 5), (9, 1), (4, 4))],
    ids=["text only", "one picture", "one row", "three pictures"],
)
def test_positions_are_those_of_the_model(model, grids):
    tokens = [WORD] * 4
    for rows, columns in grids:
        tokens += [IMAGE] * (rows * columns) + [WORD] * 3
    ids = torch.tensor([tokens])
    sizes = torch.tensor([(1, 2 * rows, 2 * columns) for rows, columns in grids]) if grids else None
    want, delta = model.get_rope_index(ids, mm_token_type_ids=(ids == IMAGE).int(), image_grid_thw=sizes)
    got = qwen.positions(np.array(tokens) == IMAGE, [qwen.Grid(1, rows, columns) for rows, columns in grids])
    np.testing.assert_array_equal(got, want)
    assert got.max() + 1 == len(tokens) + delta.item()  # where the answer goes on


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
def test_windows_are_those_of_the_model(rows, columns, side):
    order, ends = get_vision_window_index(torch.tensor([[1, 2 * rows, 2 * columns]]), 2, side * 28, 14)
    together = np.split(order.numpy(), ends[1:-1].numpy() // 4)
    groups, slots = qwen2_5_vl.windows(rows, columns, side)
    assert [sorted(window[window >= 0]) for window in groups] == [sorted(window) for window in together]
    np.testing.assert_array_equal(groups.reshape(-1)[slots], np.arange(rows * columns))
    many = rows * columns
    span = qwen2_5_vl.windows_span(Span(many, many, many), side)
    assert span.smallest <= len(groups) <= span.largest
    assert span.smallest <= span.usual <= span.largest


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 48))
def test_learned_positions_are_mixed_bit_for_bit_as_the_model_does(rows, columns, side):
    sizes = torch.tensor([[1, 2 * rows, 2 * columns]])
    want = get_vision_interpolation_indices_and_weights(sizes, side, "bilinear", True, 2)
    for ours, theirs in zip(qwen3_vl.corners(rows, columns, 2, side), want, strict=True):
        np.testing.assert_array_equal(ours.reshape(-1, 4), theirs.numpy())
        assert str(ours.dtype) in str(theirs.dtype)


def settings(least, most):
    return {"patch_size": 14, "merge_size": 2, "size": {"shortest_edge": least, "longest_edge": most}}


@given(SIDES, SIDES, st.integers(1, 2000), st.integers(1, 20))
def test_a_picture_is_scaled_as_the_processor_does_to_as_many_groups_as_were_promised(height, width, least, times):
    least, most = least * 28**2, least * times * 28**2
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(InputError, match=f"{width}x{height} pixels is more than 200 times"):
            picture.grid(height, width, settings(least, most))
        return
    rows, columns = picture.grid(height, width, settings(least, most))
    assert (rows * 28, columns * 28) == smart_resize(height, width, 28, least, most)
    span = picture.groups_span(settings(least, most), 1 << 20)
    assert span.smallest <= rows * columns <= span.largest
    assert span.smallest <= span.usual <= span.largest


FRAMES = tuple(np.random.default_rng(frame).integers(0, 256, (40, 70, 3), np.uint8) for frame in range(5))
PICTURE = np.random.default_rng(9).integers(0, 256, (90, 50, 3), np.uint8)
VIDEOS = {
    "an odd number of frames": Request(text="What happens?", frames=FRAMES),
    "one frame": Request(text="What happens?", frames=FRAMES[:1]),
    "known times": Request(text="And?", frames=FRAMES[:4], frame_seconds=(0.0, 1.5, 3.0, 4.5)),
    "a picture and a video": Request((PICTURE,), "What happens?", frames=FRAMES[:2]),
    "a video at last": Request((), "And now?", (Turn((PICTURE,), "What is it?", "a thing"),), FRAMES[:4]),
}


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def tiny(request, tmp_path_factory):
    """Family, checkpoint and model."""
    family = find.family(request.param)
    spec = spec_from_file_location("made", Path(__file__).parent / "checkpoints" / f"{request.param}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    checkpoint = read_checkpoint(module.make(family.tiny[0], tmp_path_factory.mktemp(request.param)))
    return family, checkpoint, load_model(checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEOS)
def test_answers_about_videos_are_those_of_generate(tiny, name):
    family, checkpoint, model = tiny
    prompt = family.prepare(checkpoint.config, checkpoint.tokenizer, VIDEOS[name])
    inputs = inputs_of(checkpoint, VIDEOS[name], prompt)
    assert prompt.tokens.tolist() == inputs["input_ids"][0].tolist()
    written = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0][len(prompt.tokens) :]
    assert answer(family, checkpoint.config, model, prompt) == shared.until_stop(model, written.tolist())


def inputs_of(checkpoint, request: Request, prompt: Prompt) -> dict:
    """As the checkpoint's processor makes them, which could read frames with torchvision only: patches are ours."""
    processor, vision = checkpoint.processor, checkpoint.config["model"]["vision_config"]
    pictures = len(shared.pictures_of(request))
    spaces = [look["patch_positions"].max((0, 1)) + 1 for look in prompt.looks]
    sizes = [torch.tensor([[1, *size]]) for size in spaces[:pictures]]
    thw = torch.tensor([[len(prompt.looks) - pictures, *spaces[-1]]])
    rate = 24.0 if not request.frame_seconds else 1 / request.frame_seconds[1]
    told = VideoMetadata(len(request.frames), fps=rate, frames_indices=list(range(len(request.frames))))
    messages = shared.messages(request)
    messages[-1]["content"].insert(len(request.images), {"type": "video"})
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    processor.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    made = {"video_grid_thw": thw.numpy(), "video_metadata": [told]}
    text = text.replace(processor.video_token, processor.replace_video_token(made, 0))
    for size in sizes:
        text = text.replace(processor.image_token, processor.replace_image_token({"image_grid_thw": size}, 0))
    ids = processor.tokenizer(text, return_tensors="pt")["input_ids"]
    patches = [torch.from_numpy(look["pixel_values"]).flatten(0, 1) for look in prompt.looks]
    inputs = {
        "input_ids": ids,
        "mm_token_type_ids": (ids == processor.image_token_id).int() + 2 * (ids == processor.video_token_id).int(),
        "pixel_values_videos": torch.cat(patches[pictures:]),
        "video_grid_thw": thw,
    }
    if pictures:
        inputs |= {"pixel_values": torch.cat(patches[:pictures]), "image_grid_thw": torch.cat(sizes)}
    if "tokens_per_second" in vision:
        inputs["second_per_grid_ts"] = [2 / rate]
    return inputs


def answer(family, config, model, prompt: Prompt) -> list[int]:
    """Tokens by the family's components in torch."""
    components = family.components(config)
    sessions = {each.name: TorchSession(each, model) for each in components}
    engine = Engine([plan_graph(each) for each in components], sessions, arranging(family, config))
    engine.begin(engine.encode(prompt))
    return list(decode(engine.choose, prompt, limit=12))


@pytest.mark.slow
def test_a_still_frame_is_seen_as_a_picture_is(tiny):
    family, checkpoint, _ = tiny
    still = Request(text="What?", frames=(PICTURE, PICTURE))
    (frame,) = family.prepare(checkpoint.config, checkpoint.tokenizer, still).looks
    (same,) = family.prepare(checkpoint.config, checkpoint.tokenizer, Request((PICTURE,), "What?")).looks
    np.testing.assert_array_equal(frame["pixel_values"], same["pixel_values"])


def test_times_for_other_frames_are_refused():
    with pytest.raises(InputError, match="5 frames, and times for 2"):
        _video.seconds(Request(frames=FRAMES, frame_seconds=(0.0, 1.0)))


@given(SIDES, SIDES, st.integers(2, 9), st.integers(1, 2000), st.integers(1, 20))
def test_frames_of_qwen3_are_scaled_as_the_processor_does(height, width, frames, least, times):
    least, most = least * 28**2, least * times * 28**2
    try:
        want = smart_resize_together(frames, height, width, 2, 28, least, most)
    except ValueError:
        return
    rows, columns = qwen3_vl._sized(frames, height, width, settings(least, most) | {"temporal_patch_size": 2})
    assert (rows * 28, columns * 28) == want
