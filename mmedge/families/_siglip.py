"""What both generations of SigLIP share: texts of one length, a probe that pools a picture's patches, and a similarity
that judges each pair by itself (Zhai et al. 2023, https://arxiv.org/abs/2303.15343)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mmedge.core.family import Component, Config, Request
from mmedge.core.ports import Port, Tensors
from mmedge.families import _dual_encoder as shared
from mmedge.families import _layers as layers

if TYPE_CHECKING:
    import torch

    from mmedge.media.text import Tokenizer


def text_component(config: Config) -> Component:
    """Reads texts that are all of one length: trained so, it would take shorter ones for something else."""
    text = config["model"]["text_config"]
    return Component(
        name="text",
        forward=_read,
        inputs=(Port("text_ids", "int64", ("batch", text["max_position_embeddings"])),),
        outputs=(shared.embeds("text", text["projection_size"]),),
        sizes={"batch": shared.BATCH},
    )


def full_text(config: Config, tokenizer: Tokenizer, text: str) -> np.ndarray:
    """int64 ``[1, most]``."""
    most = config["model"]["text_config"]["max_position_embeddings"]
    return shared.filled(config, shared.token_ids(config, tokenizer, text, most), most)


# What follows runs only while exporting, on the modules of `transformers`.


def _read(model: Any, text_ids: torch.Tensor) -> tuple[torch.Tensor]:
    """The last token stands for the whole text, though it mostly is one that fills it up."""
    tower = model.text_model
    hidden = tower.embeddings.token_embedding(text_ids) + tower.embeddings.position_embedding.weight[None]
    for layer in tower.encoder.layers:
        hidden = layers.encode(layer, hidden)
    return (shared.unit(tower.head(tower.final_layer_norm(hidden[:, -1]))),)


def pooled(head: Any, hidden: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """What a learned probe finds among the patches, ``[batch, width]``; ``bias`` is added to its scores."""
    import torch

    attention = head.attention
    width, heads = attention.embed_dim, attention.num_heads
    weights, biases = attention.in_proj_weight, attention.in_proj_bias
    linear = torch.nn.functional.linear
    query = linear(head.probe, weights[:width], biases[:width]).expand(hidden.shape[0], -1, -1)
    key, value = linear(hidden, weights[width:], biases[width:]).chunk(2, dim=-1)
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    context = layers.looked_at(query, key, value, bias=bias)
    found = attention.out_proj(context.transpose(1, 2).flatten(2))[:, 0]
    return found + head.mlp(head.layernorm(found))


def reference(model: Any, processor: Any, request: Request, **settings: Any) -> Tensors:
    """What the checkpoint's own processor and forward pass make of it."""
    most = model.config.text_config.max_position_embeddings
    return shared.reference(model, processor, request, padding="max_length", max_length=most, **settings)


TINY_LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TINY_TEXT = {**TINY_LAYERS, "max_position_embeddings": 64, "projection_size": 32, "bos_token_id": 1, "eos_token_id": 1}
