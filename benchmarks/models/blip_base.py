"""Make a full-size BLIP-base checkpoint with random weights.

    python benchmarks/models/blip_base.py FOLDER [--answering]

The architecture, the sizes and the files are those of ``Salesforce/blip-image-captioning-base`` (247 M parameters) or
``Salesforce/blip-vqa-base``; speed and memory do not depend on the values, and agreement with torch is exact all the
same. The words are made up: a WordPiece vocabulary of the right size with the special tokens where BERT has them.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    BlipImageProcessorPil,
    BlipProcessor,
)

SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, "[DEC]": 30522, "[ENC]": 30523}
SIZE = 30524
SCALE = {"position_embedding": 8, "attention.output.dense": 0.2, "patch_embedding": 8}
"""Factors without which a random model says the same word whatever it sees."""


def make_tokenizer() -> BertTokenizer:
    """Single letters, then made-up words, so that every text can be read and every token can be told apart."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789?.,'"
    words = itertools.chain(
        letters,
        (f"##{letter}" for letter in letters),
        (
            "".join(parts)
            for parts in itertools.product("bdfgklmnprstvz", "aeiou", "bdfgklmnprstvz", "aeiou", "klmnprst")
        ),
    )
    taken = {number: token for token, number in SPECIAL.items()}
    vocabulary = {taken.get(number) or next(words): number for number in range(SIZE)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    return BertTokenizer(tokenizer_object=tokenizer, bos_token="[DEC]", model_max_length=512)


def make_model(answering: bool) -> torch.nn.Module:
    """Random weights large enough that picture, position and last word decide the next one, as in a trained model."""
    torch.manual_seed(7)
    config = BlipConfig(
        text_config={"initializer_range": 0.06},
        # The library's default of 1e-10 would leave the picture without any effect.
        vision_config={"image_size": 384, "initializer_range": 0.06},
    )
    model = (BlipForQuestionAnswering if answering else BlipForConditionalGeneration)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.05)
            for part, factor in SCALE.items():
                parameter.mul_(factor if part in name else 1)
    return model


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--answering", action="store_true", help="the question-answering architecture")
    arguments = parser.parse_args()
    make_model(arguments.answering).save_pretrained(arguments.folder)
    side = {"height": 384, "width": 384}
    BlipProcessor(BlipImageProcessorPil(size=side), make_tokenizer()).save_pretrained(arguments.folder)
    print(arguments.folder)


if __name__ == "__main__":
    main()
