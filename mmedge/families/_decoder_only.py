"""What language models that read pictures as rows among their tokens share: graphs and prompts.

Such a model becomes ``vision`` (a tile or a picture to rows ``image_features``), ``embed`` (tokens to rows) and
``decoder``, one graph for prefill and decode. The decoder is the Llama kind (Touvron et al. 2023,
https://arxiv.org/abs/2302.13971) with what later ones added: fewer key/value heads (Ainslie et al. 2023,
https://arxiv.org/abs/2305.13245), normalised queries and keys, windows; its layers are spelled in `_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mmedge.core.family import Cache, Component, Config, Insertion, Prompt, Request
from mmedge.core.ports import CacheShape, Port, Span, Tensors
from mmedge.errors import BundleError, ContextError
from mmedge.families import _layers as layers
from mmedge.media.chat import Slots, pieces
from mmedge.media.text import Tokenizer

if TYPE_CHECKING:
    import torch

TASKS = ("caption", "ask", "chat")
CAPTION = "Describe the picture."
"""What a model is asked that can do anything and is told nothing."""

MOST_ANGLES = 1 << 21
"""Of a table of cosines, 8 MB."""

FEATURES = "image_features"
ROWS = "inputs_embeds"


@dataclass(frozen=True)
class Decoder:
    """How the text part of a family is read."""

    text: Callable[[Any], Any]
    """The module with ``embed_tokens``, ``layers``, ``norm`` and ``rotary_emb``, of the whole model."""
    axes: int = 0
    """Axes of a token's position, where there are several."""
    angles: Callable[[Any, torch.Tensor, int], torch.Tensor] | None = None
    """``angles(text, position_ids, layer)``: float32 ``[1, length, head_dim / 2]``, where they are not those of
    `_layers.plain_angles`."""
    norm_offset: float = 0.0
    """Added to the weights of every normalisation."""
    blocks: bool = False
    """Whether some tokens of a prompt see later ones."""
    strict_windows: bool = False
    """Whether a window also limits what tokens see of their own block."""
    deep: int = 0
    """Layers after which more rows of the pictures are added (Meng et al. 2024, https://arxiv.org/abs/2406.04334)."""


def text_of(config: Config) -> Config:
    """The configuration of the text part."""
    found: Config = config["model"]["text_config"]
    return found


def head_dim(text: Config) -> int:
    """Of each attention head."""
    return int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])


def components(config: Config, vision: Component, decoder: Decoder) -> tuple[Component, ...]:
    """``vision``, ``embed`` and ``decoder``."""
    text = text_of(config)
    width, positions = text["hidden_size"], text["max_position_embeddings"]
    length = Span(1, 64, positions - 1)
    ids, rows = Port("input_ids", "int64", (1, "length")), Port(ROWS, "float32", (1, "length", width))
    places = Port("position_ids", "int64", (decoder.axes, 1, "length") if decoder.axes else (1, "length"))
    asked = Port("logits_at", "int64", ("asked",))
    more: tuple[Port, ...] = (Port("blocks", "int64", (1, "length")),) if decoder.blocks else ()
    more += tuple(Port(f"deep.{index}", "float32", (1, "length", width)) for index in range(decoder.deep))
    return (
        vision,
        Component("embed", embed, (ids,), (rows,), sizes={"length": length}),
        Component(
            name="decoder",
            forward=_forward(decoder),
            inputs=(rows, places, asked, *more),
            outputs=(Port("logits", "float32", (1, "asked", text["vocab_size"])),),
            cache=CacheShape(text["num_hidden_layers"], text["num_key_value_heads"], head_dim(text)),
            causal=not decoder.blocks,
            sizes={"length": length, "total": Span(1, 256, positions), "asked": Span(1, 1, 1)},
        ),
    )


def stops(config: Config) -> tuple[int, ...]:
    """What ends an answer."""
    found = config["generation"].get("eos_token_id", text_of(config).get("eos_token_id"))
    if found is None:
        found = config["model"].get("eos_token_id")
    return () if found is None else tuple(found) if isinstance(found, (list, tuple)) else (found,)


def pictures_of(request: Request) -> list[np.ndarray]:
    """Of the whole conversation, in order."""
    return [image for turn in request.turns for image in turn.images]


def prompt(
    config: Config,
    tokenizer: Tokenizer,
    request: Request,
    pictures: Sequence[str],
    looks: Sequence[Tensors],
    video: str = "",
) -> Prompt:
    """The conversation in the checkpoint's chat template; in place of each picture stands its text of ``pictures``, in
    which every image token is a row of what ``vision`` makes of ``looks``, and in place of a video ``video``.

    Raises:
        BundleError: there is a video, and no place for one.
    """
    slots = slots_of(config)
    if video and not slots.video:
        raise BundleError(
            "the checkpoint's chat template has no place for a video", hint="ask about its frames instead"
        )
    video = slots.video.replace(config["text"]["video_token"], video) if video else ""
    asked = request if request.text or request.earlier else msgspec.structs.replace(request, text=CAPTION)
    parts = pieces(slots, asked, pictures, config["text"]["image_token"], video)
    added = [tokenizer.token_id(slots.first)] if slots.first else []
    return placed(config, np.array([*added, *tokenizer.encode_pieces(parts)], np.int64), looks)


def slots_of(config: Config) -> Slots:
    """What the checkpoint's chat template puts around texts.

    Raises:
        BundleError: it has none.
    """
    chat = config["text"].get("chat")
    if not chat:
        raise BundleError("the checkpoint has no chat template", hint="put the model's chat_template.jinja beside it")
    return msgspec.convert(chat, Slots)


def placed(config: Config, tokens: np.ndarray, looks: Sequence[Tensors]) -> Prompt:
    """Tokens, int64 ``[length]``, whose image tokens stand for rows of what ``vision`` makes of ``looks``.

    Raises:
        ContextError: there are more than the model can read.
    """
    capacity = int(text_of(config)["max_position_embeddings"])
    if len(tokens) >= capacity:
        raise ContextError(
            f"the pictures and the text are {len(tokens)} tokens long, the model reads at most {capacity - 1}",
            hint="give it fewer pictures, smaller ones, or less text",
        )
    places = np.flatnonzero(tokens == image_token_id(config))
    insertions = (Insertion(FEATURES, ROWS, places),) if looks else ()
    return Prompt({}, tokens, stops(config), capacity, tuple(looks), insertions)


def image_token_id(config: Config) -> int:
    """The token that stands for a row of a picture."""
    model = config["model"]
    return int(model["image_token_id"] if "image_token_id" in model else model["image_token_index"])


# What follows runs only while exporting, on the modules of `transformers`.


def generate(model: Any, processor: Any, request: Request, limit: int) -> list[int]:
    """The checkpoint's own processor, chat template and greedy `generate`."""
    inputs = inputs_of(processor, request)
    written = model.generate(**inputs, max_new_tokens=limit, do_sample=False, num_beams=1)[0]
    return until_stop(model, written[inputs["input_ids"].shape[1] :].tolist())


def inputs_of(processor: Any, request: Request) -> Any:
    """What the checkpoint's processor makes of a conversation."""
    asked = request if request.text or request.earlier else msgspec.structs.replace(request, text=CAPTION)
    return processor.apply_chat_template(
        messages(asked), add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


def messages(request: Request) -> list[dict[str, Any]]:
    """The conversation as chat templates take it, with its pictures."""
    found: list[dict[str, Any]] = []
    for turn in request.turns:
        found.append({"role": "user", "content": _content(turn.images, turn.text)})
        found.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return found[:-1]


def _content(images: Sequence[np.ndarray], text: str | None) -> list[dict[str, Any]]:
    from PIL import Image

    shown = [{"type": "image", "image": Image.fromarray(image)} for image in images]
    return [*shown, *([{"type": "text", "text": text}] if text else [])]


def until_stop(model: Any, tokens: list[int]) -> list[int]:
    """Without the token that ends the answer."""
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return next((tokens[:place] for place, token in enumerate(tokens) if token in ends), tokens)


def embed(model: Any, input_ids: torch.Tensor) -> tuple[torch.Tensor]:
    """Rows of the tokens, scaled where the model scales them."""
    return (model.get_input_embeddings()(input_ids),)


def _forward(decoder: Decoder) -> Callable[..., tuple[torch.Tensor]]:
    def forward(
        model: Any,
        inputs_embeds: torch.Tensor,
        position_ids: torch.Tensor,
        logits_at: torch.Tensor,
        *more: torch.Tensor,
        cache: Cache,
    ) -> tuple[torch.Tensor]:
        blocks, deep = (more[0], more[1:]) if decoder.blocks else (None, more)
        text = decoder.text(model)
        hidden = read(decoder, text, inputs_embeds, position_ids, cache, blocks, deep)
        asked = layers.normalised(text.norm, hidden.index_select(1, logits_at), decoder.norm_offset)
        return (layers.capped(model.lm_head(asked), getattr(text.config, "final_logit_softcapping", None)),)

    return forward


def read(
    decoder: Decoder,
    text: Any,
    hidden: torch.Tensor,
    position_ids: torch.Tensor,
    cache: Cache,
    blocks: torch.Tensor | None = None,
    deep: Sequence[torch.Tensor] = (),
) -> torch.Tensor:
    """All layers: ``[1, length, width]`` to the same, before the last normalisation."""
    length, angles = hidden.shape[1], decoder.angles or layers.plain_angles
    biases: dict[int, torch.Tensor] = {}
    tables = tables_of(decoder, text)
    for index, layer in enumerate(text.layers):
        attention, offset = layer.self_attn, decoder.norm_offset
        window = layers.window_of(attention)
        if window not in biases:
            biases[window] = cache.bias(length, blocks=blocks, window=window, strict=decoder.strict_windows)
        turn = layers.turns(text, angles(text, position_ids, index))
        attended = layers.attend(
            attention,
            layers.normalised(layer.input_layernorm, hidden, offset),
            turn,
            cache,
            index,
            biases[window],
            offset,
            tables,
        )
        if hasattr(layer, "pre_feedforward_layernorm"):  # Gemma 2 and 3 normalise what they add, too
            hidden = hidden + layers.normalised(layer.post_attention_layernorm, attended, offset)
            fed = layers.feed(layer.mlp, layers.normalised(layer.pre_feedforward_layernorm, hidden, offset))
            hidden = hidden + layers.normalised(layer.post_feedforward_layernorm, fed, offset)
        else:
            hidden = hidden + attended
            hidden = hidden + layers.feed(layer.mlp, layers.normalised(layer.post_attention_layernorm, hidden, offset))
        if index < len(deep):
            hidden = hidden + deep[index]
    return hidden


def tables_of(decoder: Decoder, text: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Cosines and sines of every position, ``[positions, head_dim / 2]``; None where they do not follow from the order
    of the tokens alone, or are too many to be kept."""
    import torch

    if decoder.angles or hasattr(text.layers[0].self_attn, "q_norm"):
        return None
    positions = torch.arange(text.config.max_position_embeddings)[None]
    angles = layers.plain_angles(text, positions, 0)[0]
    return layers.turns(text, angles) if angles.numel() <= MOST_ANGLES else None
