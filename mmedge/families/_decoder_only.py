"""What language models that read pictures as rows among their tokens share: graphs, prompts, the decoder's spelling.

Such a model becomes ``vision`` (a tile or a picture to rows ``image_features``), ``embed`` (tokens to rows) and
``decoder``, one graph for prefill and decode. The decoder is the Llama kind (Touvron et al. 2023,
https://arxiv.org/abs/2302.13971) with what later ones added: fewer key/value heads (Ainslie et al. 2023,
https://arxiv.org/abs/2305.13245), normalised queries and keys, windows. The modules of `transformers` supply the
weights; here they are put together so that normalisation, rotation and attention are one operator each where ONNX has
them, and products that read the same input are one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from mmedge.core.family import Cache, Component, Config, Heads, Insertion, Prompt, Request
from mmedge.core.ports import CacheShape, Port, Span, Tensors
from mmedge.errors import BundleError, ContextError
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
    `plain_angles`."""
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
        asked = normalised(text.norm, hidden.index_select(1, logits_at), decoder.norm_offset)
        return (_capped(model.lm_head(asked), getattr(text.config, "final_logit_softcapping", None)),)

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
    length, angles = hidden.shape[1], decoder.angles or plain_angles
    biases: dict[int, torch.Tensor] = {}
    tables = tables_of(decoder, text)
    for index, layer in enumerate(text.layers):
        attention, offset = layer.self_attn, decoder.norm_offset
        window = window_of(attention)
        if window not in biases:
            biases[window] = cache.bias(length, blocks=blocks, window=window, strict=decoder.strict_windows)
        turn = turns(text, angles(text, position_ids, index))
        attended = attend(
            attention,
            normalised(layer.input_layernorm, hidden, offset),
            turn,
            cache,
            index,
            biases[window],
            offset,
            tables,
        )
        if hasattr(layer, "pre_feedforward_layernorm"):  # Gemma 2 and 3 normalise what they add, too
            hidden = hidden + normalised(layer.post_attention_layernorm, attended, offset)
            fed = feed(layer.mlp, normalised(layer.pre_feedforward_layernorm, hidden, offset))
            hidden = hidden + normalised(layer.post_feedforward_layernorm, fed, offset)
        else:
            hidden = hidden + attended
            hidden = hidden + feed(layer.mlp, normalised(layer.post_attention_layernorm, hidden, offset))
        if index < len(deep):
            hidden = hidden + deep[index]
    return hidden


def window_of(attention: Any) -> int:
    """How far back a layer sees, 0 for all; Mistral says it for all layers at once."""
    everywhere = getattr(attention.config, "sliding_window", None)
    return int(getattr(attention, "sliding_window", everywhere) or 0)


def plain_angles(text: Any, position_ids: torch.Tensor, layer: int) -> torch.Tensor:
    """Position times frequency (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""
    return position_ids[..., None].float() * text.rotary_emb.inv_freq.float()


def turns(text: Any, angles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, with the factor of scaled models."""
    factor = float(getattr(text.rotary_emb, "attention_scaling", 1.0))
    return angles.cos() * factor, angles.sin() * factor


def normalised(norm: Any, hidden: torch.Tensor, offset: float = 0.0) -> torch.Tensor:
    """Divided by the root mean square of the last axis (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""
    import torch

    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    weight = norm.weight + offset if offset else norm.weight
    return torch.nn.functional.rms_norm(hidden, (hidden.shape[-1],), weight, eps)


def attend(
    attention: Any,
    hidden: torch.Tensor,
    turn: tuple[torch.Tensor, torch.Tensor],
    cache: Cache,
    index: int,
    bias: torch.Tensor,
    norm_offset: float = 0.0,
    tables: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Attention of one layer to all that was read, ``[1, length, width]``."""
    import torch

    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    sizes = [part.out_features for part in parts]
    heads, packed = heads_of(attention), joined(parts)(hidden)
    if tables is not None and (context := cache.fused(index, packed, None, None, heads, tables)) is not None:
        return attention.o_proj(context)
    query, key, value = (part.unflatten(-1, (-1, heads.dim)).transpose(1, 2) for part in packed.split(sizes, dim=-1))
    if hasattr(attention, "q_norm"):
        query = normalised(attention.q_norm, query, norm_offset)
        key = normalised(attention.k_norm, key, norm_offset)
    query, key = (torch.onnx.ops.rotary_embedding(part, *turn) for part in (query, key))
    if (context := cache.fused(index, _flat(query), _flat(key), _flat(value), heads)) is not None:
        return attention.o_proj(context)
    key, value = cache.update(index, key, value)
    if heads.cap:
        context = _capped_attention(query, key, value, bias, heads.scale, heads.cap)
    else:
        context = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, scale=heads.scale, enable_gqa=heads.queries != heads.keys
        )
    return attention.o_proj(_flat(context))


def heads_of(attention: Any) -> Heads:
    """The form of a layer's attention."""
    return Heads(
        attention.q_proj.out_features // attention.head_dim,
        attention.k_proj.out_features // attention.head_dim,
        attention.head_dim,
        attention.scaling,
        window_of(attention),
        float(getattr(attention, "attn_logit_softcapping", None) or 0),
    )


def tables_of(decoder: Decoder, text: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Cosines and sines of every position, ``[positions, head_dim / 2]``; None where they do not follow from the order
    of the tokens alone, or are too many to be kept."""
    import torch

    if decoder.angles or hasattr(text.layers[0].self_attn, "q_norm"):
        return None
    positions = torch.arange(text.config.max_position_embeddings)[None]
    angles = plain_angles(text, positions, 0)[0]
    return turns(text, angles) if angles.numel() <= MOST_ANGLES else None


def _flat(part: torch.Tensor) -> torch.Tensor:
    """``[1, heads, length, head_dim]`` to ``[1, length, heads * head_dim]``."""
    return part.transpose(1, 2).flatten(2)


def feed(mlp: Any, hidden: torch.Tensor) -> torch.Tensor:
    """A gated feed-forward (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""
    gate, up = joined((mlp.gate_proj, mlp.up_proj))(hidden).chunk(2, dim=-1)
    return mlp.down_proj(mlp.act_fn(gate) * up)


def joined(parts: Sequence[Any]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Several products of one input as one; the exporter folds the joined weights to a constant."""
    import torch

    weight = torch.cat([part.weight for part in parts])
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    return lambda hidden: torch.nn.functional.linear(hidden, weight, bias)


def _capped_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scale: float, cap: float
) -> torch.Tensor:
    import torch

    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    scores = _capped((query * scale) @ key.transpose(-2, -1), cap)
    return torch.softmax(scores + bias, -1) @ value


def _capped(scores: torch.Tensor, cap: float | None) -> torch.Tensor:
    return (scores / cap).tanh() * cap if cap else scores


def encode(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """A layer of a vision transformer that normalises first (SigLIP, CLIP), every patch looking at every other."""
    import torch

    attention = layer.self_attn
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    split = joined(parts)(layer.layer_norm1(hidden)).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in split)
    context = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    hidden = hidden + attention.out_proj(context.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.layer_norm2(hidden))


def siglip(tower: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """All patches of a picture as SigLIP reads them (Zhai et al. 2023, https://arxiv.org/abs/2303.15343), without its
    pooling: ``[1, patches, width]``."""
    embeddings = tower.embeddings
    hidden = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
    hidden = hidden + embeddings.position_embedding.weight[None]
    for layer in tower.encoder.layers:
        hidden = encode(layer, hidden)
    return tower.post_layernorm(hidden)
