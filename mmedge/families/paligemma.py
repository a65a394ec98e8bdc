"""PaliGemma: one answer about pictures (Beyer et al. 2024, https://arxiv.org/abs/2407.07726; 2: Steiner et al. 2024,
https://arxiv.org/abs/2412.03555).

Pictures, scaled to a square whatever their shape and read by SigLIP, stand before the text; all of the prompt sees all
of it, and only the answer is causal. A prompt is a task that the checkpoints were trained for, with its language: no
conversation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mmedge.core.family import Component, Config, Family, Prompt, Request
from mmedge.core.ports import Port
from mmedge.errors import InputError
from mmedge.families import _decoder_only as shared
from mmedge.families import _layers as layers
from mmedge.families import _video
from mmedge.media.chat import Piece
from mmedge.media.image import preprocess

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

CAPTION, QUESTION = "caption en", "answer en "
TASK = re.compile(r"(cap|caption|describe|answer|question) [a-z]{2}\b|(detect|segment) \S|ocr\s*$")
"""How a text begins that is a task already
(https://ai.google.dev/gemma/docs/paligemma/prompt-system-instructions)."""

DECODER = shared.Decoder(text=lambda model: model.model.language_model, norm_offset=1.0, blocks=True)


def tasks(config: Config) -> tuple[str, ...]:
    """What prompts are made for; others can be spelled out where a question is asked."""
    return ("caption", "ask")


def components(config: Config) -> tuple[Component, ...]:
    """``vision`` of one picture, ``embed`` and ``decoder``."""
    vision, text = config["model"]["vision_config"], shared.text_of(config)
    side = vision["image_size"]
    pixels = Port("pixel_values", "float32", (1, 3, side, side))
    rows = Port(shared.FEATURES, "float32", (rows_of_a_picture(config), text["hidden_size"]))
    return shared.components(config, Component("vision", _see, (pixels,), (rows,)), DECODER)


def rows_of_a_picture(config: Config) -> int:
    """One for each patch."""
    vision = config["model"]["vision_config"]
    return int(vision["image_size"] // vision["patch_size"]) ** 2


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """Squares and tokens as the checkpoint's processor makes them; positions begin at 1."""
    _refuse_unknown(request)
    settings = {name: value for name, value in config["image"].items() if name != "image_seq_length"}
    looks = [{"pixel_values": preprocess(picture, settings)} for picture in request.images]
    rows = config["text"]["image_token"] * config["image"].get("image_seq_length", rows_of_a_picture(config))
    task, text = told(request.text)
    parts = [Piece(f"{rows * len(looks)}<bos>{task}", True), Piece(text, False), Piece("\n", True)]
    tokens = np.array(tokenizer.encode_pieces(parts), np.int64)
    return msgspec.structs.replace(
        shared.placed(config, tokens, looks),
        positions=np.arange(1, len(tokens) + 1)[None],
        along={"blocks": np.ones((1, len(tokens)), np.int64)},
    )


def told(text: str | None) -> tuple[str, str]:
    """The task, and what is said with it: a text that is no task is a question."""
    if text is None:
        return CAPTION, ""
    return ("" if TASK.match(text) else QUESTION), text


def _refuse_unknown(request: Request) -> None:
    _video.refuse(request)
    if request.earlier:
        raise InputError("this model cannot go on with a conversation", hint="ask one question at a time")
    if not request.images:
        raise InputError("this model answers about pictures, and there is none", hint="give it at least one")


# What follows runs only while exporting, on the modules of `transformers`.


def generate(model: Any, processor: Any, request: Request, limit: int) -> list[int]:
    """The checkpoint's own processor and greedy `generate`."""
    inputs = inputs_of(processor, request)
    written = model.generate(**inputs, max_new_tokens=limit, do_sample=False, num_beams=1)[0]
    return shared.until_stop(model, written[inputs["input_ids"].shape[1] :].tolist())


def inputs_of(processor: Any, request: Request) -> dict[str, Any]:
    """What the checkpoint's processor makes of a task; without the labels that it adds for training."""
    import torch
    from PIL import Image

    images = [Image.fromarray(image) for image in request.images]
    text = processor.image_token * len(images) + "".join(told(request.text))
    made = processor(images=[images], text=[text], return_tensors="np")
    return {name: torch.from_numpy(tensor) for name, tensor in made.items() if name != "labels"}


def _see(model: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
    patches = layers.siglip(model.model.vision_tower, pixel_values)
    return (model.model.multi_modal_projector(patches)[0],)


_TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    "projection_dim": 32,
    "vision_use_head": False,
}
_TINY_TEXT = {
    "model_type": "gemma",
    "vocab_size": 1600,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
}
_TINY_TEXT_2 = {
    **_TINY_TEXT,
    "model_type": "gemma2",
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "query_pre_attn_scalar": 16,
    "sliding_window": 40,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 3.0,
}


def _tiny(text: Config) -> Config:
    return {
        "model_type": "paligemma",
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "text_config": text,
        "vision_config": _TINY_VISION,
        "image_token_index": 5,
        "projection_dim": 32,
        "hidden_size": 32,
        "vocab_size": 1600,
    }


FAMILY = Family(
    name="paligemma",
    architectures=("PaliGemmaForConditionalGeneration",),
    tasks=tasks,
    components=components,
    prepare=prepare,
    generate=generate,
    tiny=(_tiny(_TINY_TEXT), _tiny(_TINY_TEXT_2)),
)
