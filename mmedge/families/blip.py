"""BLIP: captions and answers about one picture (Li et al. 2022, https://arxiv.org/abs/2201.12086).

A captioning checkpoint becomes two graphs: ``encoder`` (picture to the decoder's cross-attention keys and values,
computed once an answer) and ``decoder`` (prefill and decode). A question-answering checkpoint has a third between
them, ``question``, which reads the question while looking at the picture.

The modules of `transformers` supply the weights; the attention is spelled here with
``scaled_dot_product_attention``, because the library's own matmul-softmax chain exports to twice the nodes and no
engine recognises it whole. The export compares both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Cache, Component, Config, Family, Prompt, Request
from mmedge.core.ports import CacheShape, Port, Span
from mmedge.errors import InputError
from mmedge.families import _video
from mmedge.media.image import preprocess

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer

UNHEEDED = ("do_pad", "size_divisor")
"""Settings that published checkpoints carry and that the processor of `transformers` takes without any effect."""

CAPTIONING, ANSWERING = "BlipForConditionalGeneration", "BlipForQuestionAnswering"


def tasks(config: Config) -> tuple[str, ...]:
    """A captioning checkpoint also answers: the question is its prompt."""
    return ("ask",) if _answering(config) else ("caption", "ask")


def components(config: Config) -> tuple[Component, ...]:
    """``encoder``, for question answering ``question``, and ``decoder``."""
    text, vision = config["model"]["text_config"], config["model"]["vision_config"]
    side = vision["image_size"]
    patches = (side // vision["patch_size"]) ** 2 + 1
    pixels = Port("pixel_values", "float32", (1, 3, side, side))
    positions = text["max_position_embeddings"]
    question = {"question_length": Span(1, 12, positions)} if _answering(config) else {}
    decoder_reads = "question_length" if _answering(config) else patches
    cross = _cross_ports("cross", text, decoder_reads)
    decoder = Component(
        name="decoder",
        forward=_decode,
        inputs=(_ids("input_ids", "length"), _ids("position_ids", "length"), *cross),
        outputs=(Port("logits", "float32", (1, 1, text["vocab_size"])),),
        cache=CacheShape(text["num_hidden_layers"], text["num_attention_heads"], _head_dim(text)),
        sizes={"length": Span(1, 8, positions - 1), "total": Span(1, 24, positions), **question},
    )
    if not _answering(config):
        return Component("encoder", _see_for_decoder, (pixels,), cross), decoder
    seen = _cross_ports("image", text, patches)
    reads = (_ids("question_ids", "question_length"), *seen)
    reader = Component("question", _read_question, reads, cross, sizes=question)
    return Component("encoder", _see_for_question, (pixels,), seen), reader, decoder


def prepare(config: Config, tokenizer: Tokenizer, request: Request) -> Prompt:
    """The picture as the checkpoint's processor makes it, and the text as `generate` of `transformers` reads it."""
    _video.refuse(request)
    if len(request.images) != 1:
        raise InputError(f"this model looks at one picture at a time, got {len(request.images)}")
    text = config["model"]["text_config"]
    settings = {key: value for key, value in config["image"].items() if key not in UNHEEDED}
    feeds = {"pixel_values": preprocess(request.images[0], settings)}
    start, capacity = text["bos_token_id"], text["max_position_embeddings"]
    if _answering(config):
        feeds["question_ids"] = _positions(tokenizer.encode(request.text or ""), capacity)[None]
        prompt = np.array([start], np.int64)
    else:
        # `generate` puts the start token in place of [CLS] and drops the closing [SEP].
        words = tokenizer.encode(request.text)[1:-1] if request.text else []
        prompt = _positions([start, *words], capacity - 1)
    return Prompt(feeds, prompt, stop=(text["sep_token_id"],), capacity=capacity)


def _positions(tokens: list[int], most: int) -> np.ndarray:
    if len(tokens) > most:
        raise InputError(f"the text is {len(tokens)} tokens long, the model reads at most {most}", hint="shorten it")
    return np.array(tokens, np.int64)


def _answering(config: Config) -> bool:
    return ANSWERING in config["model"]["architectures"]


def _head_dim(text: Config) -> int:
    return int(text["hidden_size"] // text["num_attention_heads"])


def _ids(name: str, length: str) -> Port:
    return Port(name, "int64", (1, length))


def _cross_ports(prefix: str, text: Config, length: int | str) -> tuple[Port, ...]:
    """Keys and values that a text layer's cross-attention reads."""
    shape = (1, text["num_attention_heads"], length, _head_dim(text))
    names = (f"{prefix}.{layer}.{part}" for layer in range(text["num_hidden_layers"]) for part in ("key", "value"))
    return tuple(Port(name, "float32", shape) for name in names)


# What follows runs only while exporting, on the modules of `transformers`.


def generate(model: Any, processor: Any, request: Request, limit: int) -> list[int]:
    """The checkpoint's own processor and greedy `generate`."""
    # Left to guess, the processor takes a picture three pixels high, or one, for planes.
    layout = "channels_last"
    inputs = processor(images=request.images[0], text=request.text, input_data_format=layout, return_tensors="pt")
    tokens: list[int] = model.generate(**inputs, max_new_tokens=limit, do_sample=False, num_beams=1)[0].tolist()
    text = model.config.text_config
    answering = type(model).__name__ == ANSWERING
    read = 1 if answering or request.text is None else inputs["input_ids"].shape[1] - 1
    written = tokens[read:]
    return written[: written.index(text.sep_token_id)] if text.sep_token_id in written else written


def _see(vision: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Picture to one vector per patch, ``[1, patches + 1, hidden]``."""
    import torch

    embeddings = vision.embeddings
    patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    hidden = torch.cat([embeddings.class_embedding, patches], dim=1) + embeddings.position_embedding
    for layer in vision.encoder.layers:
        attention = layer.self_attn
        query, key, value = attention.qkv(layer.layer_norm1(hidden)).chunk(3, dim=-1)
        heads = [_split(tensor, attention.num_heads) for tensor in (query, key, value)]
        hidden = hidden + attention.projection(_attend(*heads))
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    return vision.post_layernorm(hidden)


def _see_for_decoder(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _cross_keys_values(model.text_decoder.bert, _see(model.vision_model, pixels))


def _see_for_question(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _cross_keys_values(model.text_encoder, _see(model.vision_model, pixels))


def _read_question(model: Any, question_ids: torch.Tensor, *seen: torch.Tensor) -> tuple[torch.Tensor, ...]:
    import torch

    reader = model.text_encoder
    positions = torch.arange(question_ids.shape[1])[None]
    return _cross_keys_values(model.text_decoder.bert, _read(reader, question_ids, positions, seen))


def _decode(
    model: Any, input_ids: torch.Tensor, position_ids: torch.Tensor, *cross: torch.Tensor, cache: Cache
) -> tuple[torch.Tensor]:
    """Logits of the last position; earlier ones are never read."""
    hidden = _read(model.text_decoder.bert, input_ids, position_ids, cross, cache)
    return (model.text_decoder.cls(hidden[:, -1:]),)


def _read(
    bert: Any,
    ids: torch.Tensor,
    positions: torch.Tensor,
    cross: tuple[torch.Tensor, ...],
    cache: Cache | None = None,
) -> torch.Tensor:
    """The text layers: self-attention, cross-attention to ``cross``, feed-forward, each normalised after its sum."""
    bias = cache.bias(ids.shape[1]) if cache else None
    embeddings = bert.embeddings
    hidden = embeddings.LayerNorm(embeddings.word_embeddings(ids) + embeddings.position_embeddings(positions))
    for index, layer in enumerate(bert.encoder.layer):
        attention, heads = layer.attention.self, layer.attention.self.num_attention_heads
        query, key, value = (_split(part, heads) for part in _packed(attention)(hidden).chunk(3, dim=-1))
        if cache:
            key, value = cache.update(index, key, value)
        hidden = layer.attention.output(_attend(query, key, value, bias), hidden)
        query = _split(layer.crossattention.self.query(hidden), heads)
        hidden = layer.crossattention.output(_attend(query, *cross[2 * index : 2 * index + 2]), hidden)
        hidden = layer.feed_forward_chunk(hidden)
    return hidden


def _packed(attention: Any) -> Any:
    """Query, key and value as one matrix product; the exporter folds the joined weights to a constant."""
    import torch

    parts = (attention.query, attention.key, attention.value)
    weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
    return lambda hidden: torch.nn.functional.linear(hidden, weight, bias)


def _cross_keys_values(bert: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
    blocks = (layer.crossattention.self for layer in bert.encoder.layer)
    pairs = ((block.key(hidden), block.value(hidden), block.num_attention_heads) for block in blocks)
    return tuple(_split(part, heads) for key, value, heads in pairs for part in (key, value))


def _split(hidden: torch.Tensor, heads: int) -> torch.Tensor:
    """``[1, length, hidden]`` to ``[1, heads, length, head_dim]``."""
    return hidden.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    import torch

    context = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return context.transpose(1, 2).flatten(2)


_TINY_TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "bos_token_id": 2,
    "sep_token_id": 3,
    "pad_token_id": 0,
}
_TINY_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
    # The library's default of 1e-10 would leave the picture without any effect.
    "initializer_range": 0.2,
}

FAMILY = Family(
    name="blip",
    architectures=(CAPTIONING, ANSWERING),
    tasks=tasks,
    components=components,
    prepare=prepare,
    generate=generate,
    tiny=tuple(
        {"model_type": "blip", "architectures": [name], "text_config": _TINY_TEXT, "vision_config": _TINY_VISION}
        for name in (CAPTIONING, ANSWERING)
    ),
)
