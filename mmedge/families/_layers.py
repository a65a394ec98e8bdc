"""Layers of transformers, spelled for export: the modules of `transformers` supply the weights.

Normalisation, rotation and attention become one operator each where ONNX has them, and products that read the same
input are one product. All of it runs only while exporting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mmedge.core.family import Cache, Heads

if TYPE_CHECKING:
    import torch

UNSEEN = -6000.0
"""Added to the attention scores of what is not looked at: 0 after the softmax, and within float16."""


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
    scores = capped((query * scale) @ key.transpose(-2, -1), cap)
    return torch.softmax(scores + bias, -1) @ value


def capped(scores: torch.Tensor, cap: float | None) -> torch.Tensor:
    return (scores / cap).tanh() * cap if cap else scores


def encode(layer: Any, hidden: torch.Tensor, *, causal: bool = False, bias: torch.Tensor | None = None) -> torch.Tensor:
    """A layer of a transformer that normalises first (SigLIP, CLIP); each row looks at every other, or where it is
    ``causal`` at itself and those before. ``bias`` is added to the scores, ``[batch, 1, 1, rows]``."""
    attention = layer.self_attn
    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    split = joined(parts)(layer.layer_norm1(hidden)).chunk(3, dim=-1)
    query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in split)
    context = looked_at(query, key, value, bias=bias, causal=causal)
    hidden = hidden + attention.out_proj(context.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.layer_norm2(hidden))


def looked_at(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """Attention of each head, ``[..., heads, rows, head_dim]``; ``bias`` is added to the scores."""
    import torch

    if bias is None:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=causal)
    # Given a bias, the operator wants one for each row, and exporters guard it against hiding all of them.
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
    return torch.softmax(scores + bias, -1) @ value


def siglip(tower: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """All patches of a picture as SigLIP reads them (Zhai et al. 2023, https://arxiv.org/abs/2303.15343), without its
    pooling: ``[1, patches, width]``."""
    embeddings = tower.embeddings
    hidden = embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
    hidden = hidden + embeddings.position_embedding.weight[None]
    for layer in tower.encoder.layers:
        hidden = encode(layer, hidden)
    return tower.post_layernorm(hidden)
