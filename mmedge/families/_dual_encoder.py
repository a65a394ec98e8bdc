"""What dual encoders share: two towers, one a modality, whose outputs of length 1 are compared by their cosine.

Each tower is a graph of its own, so a request feeds those it has something for. Both read any number at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import MODALITIES, Config, Request
from mmedge.core.ports import Port, Span, Tensors
from mmedge.core.similarity import Similarity
from mmedge.errors import ContextError, InputError

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

BATCH = Span(1, 1, 32)
"""How many of a modality are embedded at once."""


def tasks(config: Config) -> tuple[str, ...]:
    """They write nothing."""
    return ("embed",)


def embeds(modality: str, width: int) -> Port:
    """A tower's output: rows of length 1."""
    return Port(f"{modality}_embeds", "float32", ("batch", width))


def refuse_others(request: Request, reads: Sequence[str]) -> None:
    """
    Raises:
        InputError: the request has something that the model has no tower for.
    """
    given = {"image": request.images, "video": request.frames, "audio": request.sounds, "text": request.text}
    for modality, value in given.items():
        if value and modality not in reads:
            known = " and ".join(MODALITIES[each] for each in reads)
            raise InputError(f"this model embeds {known}, not {MODALITIES[modality]}")


def token_ids(config: Config, tokenizer: Tokenizer, text: str, most: int) -> list[int]:
    """
    Raises:
        ContextError: there are more than the model can read.
    """
    tokens = tokenizer.encode(text)
    if len(tokens) > most:
        raise ContextError(
            f"the text is {len(tokens)} tokens long, the model reads at most {most}", hint="shorten the text"
        )
    return tokens


def filled(config: Config, tokens: Sequence[int], length: int) -> np.ndarray:
    """int64 ``[1, length]``, filled up as the checkpoint's tokenizer does."""
    text = config["text"]
    rest = [text["pad_token_id"]] * (length - len(tokens))
    return np.array([[*rest, *tokens] if text["padding_side"] == "left" else [*tokens, *rest]], np.int64)


# What follows runs only while exporting, on the modules of `transformers`.


def unit(features: torch.Tensor) -> torch.Tensor:
    """Rows of length 1."""
    return features / features.norm(dim=-1, keepdim=True)


def softmax(model: Any) -> Similarity:
    """Of models trained to tell the right one of several."""
    return Similarity(float(model.logit_scale.detach().exp()))


def sigmoid(model: Any) -> Similarity:
    """Of models trained to tell of each pair by itself whether it is right."""
    return Similarity(float(model.logit_scale.detach().exp()), float(model.logit_bias.detach()), "sigmoid")


def reference(model: Any, processor: Any, request: Request, **settings: Any) -> Tensors:
    """What the checkpoint's own processor and forward pass make of pictures, and of a text if there is one;
    ``settings`` are the processor's."""
    import torch
    from PIL import Image

    processor.tokenizer.split_special_tokens = True  # what a user writes is only ever text
    images = [Image.fromarray(image) for image in request.images]
    inputs = processor(text=[request.text or ""], images=images, return_tensors="pt", **settings)
    with torch.inference_mode():
        outputs = model(**inputs)
    names = ("image_embeds", *(("text_embeds",) if request.text is not None else ()))
    return {name: np.asarray(outputs[name]) for name in names}
