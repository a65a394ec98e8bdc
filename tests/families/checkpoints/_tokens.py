"""Tokenizers for tiny checkpoints: bytes, a few merged pairs, and the special tokens that a family asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

MERGES = (("t", "h"), ("th", "e"), ("i", "n"), ("Ġ", "a"), ("Ġ", "the"), ("Ġ", "i"), ("i", "s"), ("Ġ", "W"))


def byte_level(specials: Sequence[str], **named: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose first tokens are ``specials``, in order; ``named`` says which of them is what."""
    vocabulary = {token: index for index, token in enumerate(specials)}
    for piece in (*sorted(pre_tokenizers.ByteLevel.alphabet()), *(one + two for one, two in MERGES)):
        vocabulary[piece] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, list(MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)


def save_processor(processor: Any, folder: Path, **settings: object) -> None:
    """As checkpoints on the Hub have it: files of its parts, and what it is told itself."""
    processor.tokenizer.save_pretrained(folder)
    for part in {"image_processor", "feature_extractor"} & vars(processor).keys():
        getattr(processor, part).save_pretrained(folder)
    told = {"processor_class": type(processor).__name__, **settings}
    (folder / "processor_config.json").write_text(json.dumps(told))
    if processor.chat_template:
        (folder / "chat_template.jinja").write_text(processor.chat_template)
