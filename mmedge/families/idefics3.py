"""Idefics3: answers about pictures in tiles (Laurençon et al. 2024, https://arxiv.org/abs/2408.12637).

SmolVLM is this model made small; the first SmolVLM checkpoints and those that read documents, such as Granite Docling,
say that they are Idefics3. They differ in sizes, tokens and chat template alone, which are the checkpoint's.
"""

from __future__ import annotations

from mmedge.core.family import Family
from mmedge.families import _decoder_only as shared
from mmedge.families import smolvlm

_TINY = {
    "model_type": "idefics3",
    "architectures": ["Idefics3ForConditionalGeneration"],
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 38,
        "patch_size": 6,
        "initializer_range": 0.2,
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": 288,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.2,
    },
    "scale_factor": 2,
    "image_token_id": 4,
    "pad_token_id": 0,
}

FAMILY = Family(
    name="idefics3",
    architectures=("Idefics3ForConditionalGeneration",),
    tasks=smolvlm.tasks,
    components=smolvlm.components,
    prepare=smolvlm.prepare,
    generate=shared.generate,
    pixels=smolvlm.pixels,
    tiny=(_TINY | {"tie_word_embeddings": False}, _TINY | {"tie_word_embeddings": True}),
)
