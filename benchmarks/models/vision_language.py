"""Make a full-size vision-language checkpoint with random weights.

    python benchmarks/models/vision_language.py smolvlm_256m FOLDER

Sizes, special tokens, chat template and files are those of the published checkpoints (`MODELS`); speed and memory do
not depend on the values. The words are those of the Python library's own sources. The rows of the head that belong to
special tokens are zero: greedy answers never end, nor do they contain the token of a picture.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

WORDS = 48_000
"""Tokens that are learned; the rest of a vocabulary is filled up with some that no text becomes."""
QWEN_SPLITS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SMOLVLM_CHAT = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QWEN_CHAT = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}PICTURE"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|{name}_{end}|>" for name in ("object_ref", "box", "quad", "vision") for end in ("start", "end")),
    *(f"<|{name}_pad|>" for name in ("vision", "image", "video")),
)


# Tokenizers


def smollm_tokenizer() -> PreTrainedTokenizerFast:
    """49,280 tokens; the special ones of code come first, those of pictures last."""
    code = ("repo_name", "reponame", "file_sep", "filename", "gh_stars", "issue_start", "issue_comment", "issue_closed")
    notebook = tuple(f"jupyter_{part}" for part in ("start", "text", "code", "output", "script"))
    first = (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *(f"<{name}>" for name in (*code, *notebook, "empty_output")),
    )
    tiles = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
    reserved = tuple(f"<|reserved_special_token_{number}|>" for number in range(88))
    last = ("<global-img>", *tiles, "<fake_token_around_image>", "<image>", *reserved, "<end_of_utterance>")
    splits = (pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False))
    names = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
    return tokenizer_of(pre_tokenizers.Sequence(list(splits)), first, 49_152, last, names)


def qwen_tokenizer(*more: str) -> PreTrainedTokenizerFast:
    """151,643 tokens, and the special ones after them."""
    splits = pre_tokenizers.Split(Regex(QWEN_SPLITS), "isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return tokenizer_of(pre_tokenizers.Sequence([splits, plain]), (), 151_643, (*QWEN_SPECIAL, *more), names)


def tokenizer_of(
    splits: pre_tokenizers.PreTokenizer, first: tuple[str, ...], size: int, last: tuple[str, ...], names: dict[str, str]
) -> PreTrainedTokenizerFast:
    """Byte pairs of the Python library's sources, ``size`` tokens with the special ones at the beginning."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = splits, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, special_tokens=list(first), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sources(), trainer)
    whole = json.loads(tokenizer.to_str())
    vocabulary = whole["model"]["vocab"]
    vocabulary |= {f"Ġunused{number}": number for number in range(len(vocabulary), size)}
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in last])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


def sources() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    files = (file for file in sorted(library.rglob("*.py")) if "site-packages" not in file.parts)
    return (file.read_text(errors="ignore") for file in files)


# Models


def smolvlm_256m(folder: Path, kind: str = "smolvlm") -> None:
    """``HuggingFaceTB/SmolVLM-256M-Instruct``, whose pictures are one tile here: `do_image_splitting` is off."""
    from transformers import Idefics3ImageProcessorPil, Idefics3Processor

    tokenizer = smollm_tokenizer()
    text = {
        "model_type": "llama",
        "architectures": ["VLlama3ForCausalLM"],
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "intermediate_size": 1536,
        "vocab_size": 49_280,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_theta": 100_000.0, "rope_type": "default"},
        "rms_norm_eps": 1e-5,
        "initializer_range": 576**-0.5,
        "tie_word_embeddings": False,
        "pad_token_id": 2,
    }
    vision = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "image_size": 512,
        "patch_size": 16,
    }
    ids = {"image_token_id": tokenizer.convert_tokens_to_ids("<image>"), "pad_token_id": 2}
    config = AutoConfig.for_model(kind, text_config=text, vision_config=vision, scale_factor=4, **ids)
    save_model(config, folder, tokenizer, eos="<end_of_utterance>")
    edge = {"longest_edge": 512}
    pixels = Idefics3ImageProcessorPil(do_image_splitting=False, size=edge, max_image_size=edge, resample=1)
    Idefics3Processor(pixels, tokenizer, image_seq_len=64, chat_template=SMOLVLM_CHAT).save_pretrained(folder)
    publish(folder, pixels, {"image_seq_len": 64, "processor_class": "Idefics3Processor"}, "GPT2Tokenizer")


def save_model(config: Any, folder: Path, tokenizer: PreTrainedTokenizerFast, eos: str) -> None:
    """Random weights in bfloat16, and how it generates."""
    torch.manual_seed(7)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    special = [number for number in tokenizer.added_tokens_decoder if number < config.text_config.vocab_size]
    with torch.no_grad():
        model.get_output_embeddings().weight[special] = 0
    end = tokenizer.convert_tokens_to_ids(eos)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)


def publish(folder: Path, pixels: Any, processor: dict[str, Any], tokenizer_class: str) -> None:
    """The files as they were before version 5 of `transformers`: as published checkpoints have them."""
    pixels.save_pretrained(folder)
    write_json(folder / "processor_config.json", processor)
    config = read_json(folder / "config.json")
    config["text_config"] |= {"rope_theta": config["text_config"].pop("rope_parameters")["rope_theta"]}
    write_json(folder / "config.json", config | {"torch_dtype": config.pop("dtype")})
    words = read_json(folder / "tokenizer_config.json")
    special = words.pop("extra_special_tokens", [])
    chat = (folder / "chat_template.jinja").read_text()
    more = {"additional_special_tokens": special, "tokenizer_class": tokenizer_class, "chat_template": chat}
    write_json(folder / "tokenizer_config.json", {name: words[name] for name in words if name != "backend"} | more)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


MODELS: dict[str, Callable[[Path], None]] = {"smolvlm_256m": smolvlm_256m}


def main() -> None:
    """Write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    MODELS[arguments.model](arguments.folder)
    print(arguments.folder)


if __name__ == "__main__":
    main()
