"""What tiny checkpoints of the Gemma kind share: a tokenizer of the kind that all of them have, and weights that show
whether each of them is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GemmaTokenizer

PLAIN = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
MERGES = (
    ("\n", "\n"), ("\n\n", "\n"), ("\n\n", "\n\n"), ("i", "s"), ("t", "h"), ("th", "e"), ("▁", "i"), ("▁i", "s"),
    ("▁", "the"), ("▁", "W"), ("h", "a"), ("ha", "t"), ("▁", "▁"), ("e", "n"), ("▁", "en"), ("e", "r"), ("u", "s"),
    ("us", "er"),
)  # fmt: skip


def tokenizer(specials: Sequence[str], **settings: Any) -> GemmaTokenizer:
    """Byte-pair encoding with bytes for what it does not know; ``specials`` come behind `PLAIN`."""
    letters = ["▁", "\n", *(chr(code) for code in range(33, 127))]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = [*PLAIN, *specials, *bytes_, *letters, *(one + two for one, two in MERGES)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    made = GemmaTokenizer(vocab=vocabulary, merges=list(MERGES), **settings)
    made.add_special_tokens({"additional_special_tokens": list(specials)}, replace_extra_special_tokens=False)
    return made


def draw(model: torch.nn.Module) -> None:
    """Numbers for weights that begin as zeros, where leaving them out would not show; and so much said by the layers
    that an answer does not repeat the token before."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
            if "language_model" in name and "post_" in name:
                parameter.add_(2.0)
