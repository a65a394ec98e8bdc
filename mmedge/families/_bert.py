"""Texts as BERT reads them: every token looks at every other, and normalisation comes after (Devlin et al. 2018,
https://arxiv.org/abs/1810.04805). Runs only while exporting, on the modules of `transformers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmedge.families import _layers as layers

if TYPE_CHECKING:
    import torch


def read(tower: Any, ids: torch.Tensor, mask: torch.Tensor, first: int = 0) -> torch.Tensor:
    """float32 ``[batch, length, width]``; what ``mask`` has 0 for is not looked at. The first position of a text is
    number ``first``."""
    embeddings, length = tower.embeddings, ids.shape[1]
    hidden = embeddings.word_embeddings(ids) + embeddings.token_type_embeddings.weight[0]
    hidden = hidden + embeddings.position_embeddings.weight[first : first + length][None]
    hidden = embeddings.LayerNorm(hidden)
    bias = (1 - mask[:, None, None].float()) * layers.UNSEEN
    for layer in tower.encoder.layer:
        hidden = _layer(layer, hidden, bias)
    return hidden


def pooled(tower: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What the first token says of the text."""
    return tower.pooler.dense(hidden[:, 0]).tanh()


def _layer(layer: Any, hidden: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    attention, after = layer.attention.self, layer.attention.output
    split = layers.joined((attention.query, attention.key, attention.value))(hidden).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2) for part in split)
    context = layers.looked_at(query, key, value, bias=bias)
    hidden = after.LayerNorm(hidden + after.dense(context.transpose(1, 2).flatten(2)))
    return layer.output.LayerNorm(hidden + layer.output.dense(layer.intermediate(hidden)))
