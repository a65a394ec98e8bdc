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
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAVA_CHAT = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}"
    "{% endfor %}{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
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


def qwen_tokenizer(special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """151,643 tokens, and the special ones after them: those of conversations, and ``special`` or all of Qwen2-VL's."""
    splits = pre_tokenizers.Split(Regex(QWEN_SPLITS), "isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return tokenizer_of(
        pre_tokenizers.Sequence([splits, plain]), (), 151_643, QWEN_SPECIAL[:3] + (special or QWEN_SPECIAL[3:]), names
    )


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


def llava_onevision_05b(folder: Path) -> None:
    """``llava-hf/llava-onevision-qwen2-0.5b-ov-hf``: pictures in tiles of 384 pixels beside one of the whole."""
    from transformers import LlavaOnevisionImageProcessorPil

    tokenizer = qwen_tokenizer(special=("<image>", "<video>"))
    text = qwen2_05b() | {"vocab_size": 152_000, "max_position_embeddings": 32_768}
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "intermediate_size": 4304,
        "image_size": 384,
        "patch_size": 14,
        "vision_use_head": False,
    }
    sides = [384 * count for count in range(1, 7)]
    pinpoints = [[height, width] for height in sides for width in sides]
    ids = {"image_token_id": 151_646, "video_token_id": 151_647, "tie_word_embeddings": True}
    config = AutoConfig.for_model(
        "llava_onevision", text_config=text, vision_config=vision, image_grid_pinpoints=pinpoints, **ids
    )
    save_model(config, folder, tokenizer, eos="<|im_end|>")
    tokenizer.chat_template = LLAVA_CHAT
    tokenizer.save_pretrained(folder)
    pixels = LlavaOnevisionImageProcessorPil(size={"height": 384, "width": 384}, image_grid_pinpoints=pinpoints)
    processor = {"num_image_tokens": 729, "vision_feature_select_strategy": "full"}
    publish(folder, pixels, processor | {"processor_class": "LlavaOnevisionProcessor"}, "Qwen2Tokenizer")


def qwen2_vl_2b(folder: Path) -> None:
    """``Qwen/Qwen2-VL-2B-Instruct``: pictures of any shape, positions of three axes."""
    from transformers import Qwen2VLImageProcessorPil

    tokenizer = qwen_tokenizer()
    text = {
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151_936,
        "max_position_embeddings": 32_768,
        "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": True,
    }
    vision = {"hidden_size": 1536, "embed_dim": 1280, "depth": 32, "num_heads": 16, "patch_size": 14}
    config = AutoConfig.for_model("qwen2_vl", text_config=text, vision_config=vision, tie_word_embeddings=True)
    save_model(config, folder, tokenizer, eos="<|im_end|>")
    tokenizer.chat_template = QWEN_CHAT
    tokenizer.save_pretrained(folder)
    pixels = Qwen2VLImageProcessorPil(min_pixels=3136, max_pixels=12_845_056)
    publish(folder, pixels, {"processor_class": "Qwen2VLProcessor"}, "Qwen2Tokenizer")


def qwen2_05b() -> dict[str, Any]:
    """The language model ``Qwen/Qwen2-0.5B``, but for its words."""
    return {
        "model_type": "qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "rope_parameters": {"rope_theta": 1_000_000.0, "rope_type": "default"},
        "tie_word_embeddings": True,
    }


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
    text = config["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope["rope_theta"]
    if "mrope_section" in rope:
        config["rope_scaling"] = text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
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


MODELS: dict[str, Callable[[Path], None]] = {
    each.__name__: each for each in (smolvlm_256m, llava_onevision_05b, qwen2_vl_2b)
}


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
