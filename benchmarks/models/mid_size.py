"""Mid-size vision-language checkpoints with random weights.

Sizes of heads, patches, tiles, windows and sections are those of published checkpoints, and so are the proportions;
layers are fewer and narrower. Words, templates and files are those of the tiny checkpoints of the tests.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from msgspec import Struct
from safetensors.torch import load_file, save_file

from mmedge.core import find
from mmedge.core.family import Config

MAKERS = Path(__file__).resolve().parents[2] / "tests" / "families" / "checkpoints"
SPREAD = {"initializer_range": 0.05}
"""About 1.5 over the root of the widths: what is read shows in the answers."""


class MidSize(Struct, frozen=True):
    """What differs from one of a family's tiny checkpoints."""

    config: Config
    pictures: Config = {}
    """Settings of the picture processor, where the tiny one's are not taken from its configuration."""
    processor: Config = {}
    tiny: int = 0
    """Which of the family's."""
    repeats: bool = False
    """Whether random weights answer with one token again and again, whatever is asked."""


def text(width: int, heads: int, shared_heads: int, inner: int, layers: int = 4, **more: Any) -> Config:
    """The language model, of ``shared_heads`` keys and values."""
    sizes = {"hidden_size": width, "num_attention_heads": heads, "num_key_value_heads": shared_heads}
    depth = {"intermediate_size": inner, "num_hidden_layers": layers, "max_position_embeddings": 8192}
    return {"text_config": sizes | depth | SPREAD | more}


def tower(width: int, heads: int, inner: int, side: Any, patch: Any, layers: int = 4, **more: Any) -> Config:
    """The vision tower, of square pictures whose ``side`` some families write twice."""
    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner}
    depth = {"num_hidden_layers": layers, "image_size": side, "patch_size": patch}
    return {"vision_config": sizes | depth | SPREAD | more}


def qwen_tower(width: int, patch: int, **more: Any) -> Config:
    """The vision tower of pictures of any shape."""
    return {"vision_config": {"hidden_size": width, "patch_size": patch, "depth": 4, "num_heads": 8} | SPREAD | more}


def rope(theta: float, **more: Any) -> Config:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **more}}


def square(side: int) -> Config:
    return {"height": side, "width": side}


GEMMA3 = {
    "layer_types": [*["sliding_attention"] * 5, "full_attention"],
    "rope_parameters": {"sliding_attention": {"rope_theta": 10_000.0}, "full_attention": {"rope_theta": 1_000_000.0}},
}
QWEN_SIZE = {"size": {"shortest_edge": 3136, "longest_edge": 448 * 448}}
SECTIONS = {"mrope_section": [16, 24, 24]}

MODELS: dict[str, MidSize] = {
    "smolvlm": MidSize(
        text(576, 9, 3, 1536, layers=6, **rope(100_000.0))
        | tower(384, 6, 1536, 384, 14, layers=6)
        | {"scale_factor": 3},
        {"size": {"longest_edge": 768}, "max_image_size": {"longest_edge": 384}},
        {"image_seq_len": 81},
    ),
    "idefics3": MidSize(
        text(1024, 8, 2, 2816, **rope(500_000.0)) | tower(576, 8, 2152, 364, 14),
        {"size": {"longest_edge": 3 * 364}, "max_image_size": {"longest_edge": 364}},
        {"image_seq_len": 169},
    ),
    "llava": MidSize(
        text(1024, 8, 4, 2752, **rope(10_000.0)) | tower(512, 8, 2048, 336, 14),
        {"size": {"shortest_edge": 336}, "crop_size": square(336)},
    ),
    "llava_onevision": MidSize(
        text(896, 14, 2, 2432, **rope(1_000_000.0))
        | tower(576, 8, 2152, 384, 14)
        | {"vision_aspect_ratio": "anyres_max_4"}
        | {"image_grid_pinpoints": [[384 * rows, 384 * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]},
        processor={"num_image_tokens": 729, "vision_aspect_ratio": "anyres_max_4"},
    ),
    "qwen2_vl": MidSize(
        text(1024, 8, 2, 2816, **rope(1_000_000.0, **SECTIONS)) | qwen_tower(1024, 14, embed_dim=640),
        {"patch_size": 14} | QWEN_SIZE,
    ),
    "qwen2_5_vl": MidSize(
        text(1024, 8, 2, 2816, **rope(1_000_000.0, **SECTIONS))
        | qwen_tower(
            640, 14, out_hidden_size=1024, intermediate_size=1712, window_size=112, fullatt_block_indexes=[1, 3]
        ),
        {"patch_size": 14} | QWEN_SIZE,
    ),
    "qwen3_vl": MidSize(
        text(1024, 16, 8, 3072, head_dim=128, **rope(5_000_000.0, mrope_section=[24, 20, 20]))
        | qwen_tower(
            512,
            16,
            out_hidden_size=1024,
            intermediate_size=2048,
            num_position_embeddings=2304,
            deepstack_visual_indexes=[0, 1, 2],
        ),
        {"patch_size": 16} | QWEN_SIZE,
    ),
    "paligemma": MidSize(
        text(
            768,
            8,
            4,
            2304,
            head_dim=256,
            query_pre_attn_scalar=256,
            sliding_window=512,
            attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
        )
        | tower(576, 8, 2152, 224, 14, projection_dim=768)
        | {"projection_dim": 768, "hidden_size": 768},
        tiny=1,
        repeats=True,
    ),
    "gemma3": MidSize(
        text(640, 8, 4, 1920, layers=6, head_dim=256, query_pre_attn_scalar=256, sliding_window=512, **GEMMA3)
        | tower(576, 8, 2152, 448, 14)
        | {"mm_tokens_per_image": 256},
        repeats=True,
    ),
    "internvl": MidSize(
        text(896, 14, 2, 2432, **rope(1_000_000.0))
        | tower(512, 8, 2048, [448, 448], [14, 14])
        | {"image_seq_length": 256},
        {"size": square(448), "max_patches": 6},
        {"image_seq_length": 256},
    ),
}


def make(name: str, folder: Path) -> Path:
    """Write the whole checkpoint of a family."""
    asked = MODELS[name]
    spec = importlib.util.spec_from_file_location(f"checkpoint_of_{name}", MAKERS / f"{name}.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    maker.make(over(find.family(name).tiny[asked.tiny], asked.config), folder)
    for file, more in (("preprocessor_config.json", asked.pictures), ("processor_config.json", asked.processor)):
        told = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(over(told, more), indent=2) + "\n")
    if asked.repeats:
        adjust(folder / "model.safetensors")
    return folder


def adjust(file: Path) -> None:
    """Smaller rows of words, which are large beside what random layers say; larger normalised queries and keys, without
    which attention reads the mean of everything."""
    tensors = load_file(file)
    for name, weights in tensors.items():
        if "language_model" in name and name.endswith(("q_norm.weight", "k_norm.weight")):
            weights += 1
        elif name.endswith("embed_tokens.weight"):
            weights *= 0.2
    save_file(tensors, file, metadata={"format": "pt"})


def over(below: Config, above: Config) -> Config:
    """``below`` with what ``above`` says, at any depth."""
    return below | {
        key: over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
