"""Make a full-size dual encoder checkpoint with random weights.

    python benchmarks/models/dual_encoder.py clip_b32 FOLDER

Sizes and files are those of the published checkpoint; speed and memory do not depend on the values. The words are those
of the Python library's own sources.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor
from vision_language import tokenizer_of

START, END = "<|startoftext|>", "<|endoftext|>"


def clip_b32(folder: Path) -> None:
    """CLIP ViT-B/32: 88 million weights for pictures of 224 pixels, 63 million for texts of 77 tokens."""
    splits = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    tokenizer = tokenizer_of(splits, (), 49_406, (START, END), names)
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (START, END)]
    around = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    tokenizer.backend_tokenizer.post_processor = around
    bos, eos = (number for _, number in ends)
    config = CLIPConfig(
        text_config={"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": eos, "vocab_size": 49_408}
    )
    torch.manual_seed(0)
    CLIPModel(config).eval().save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(), tokenizer).save_pretrained(folder)


MODELS = {"clip_b32": clip_b32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    MODELS[options.model](options.folder)


if __name__ == "__main__":
    main()
