"""Tiny Idefics3 checkpoints: 38-pixel tiles, up to three by three of them and the whole.

One as the first of the kind, Idefics3-8B-Llama3, is written: a begin token, untied embeddings, and names of rows and
columns that its vocabulary does not have. One as Granite Docling is: other words of its own around the turns, no begin
token, tied embeddings, and tokens for rows and columns.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Idefics3ForConditionalGeneration, Idefics3ImageProcessorPil, Idefics3Processor

_spec = importlib.util.spec_from_file_location("_tokens", Path(__file__).with_name("_tokens.py"))
_tokens = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tokens)

LLAMA_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}{{message['role'].capitalize()}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
GRANITE_TEMPLATE = """{%- for message in messages -%}
{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}
{{- part['text'] -}}
{%- elif part['type'] == 'image' -%}
{{- '<image>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|end_of_text|>
' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_of_role|>assistant<|end_of_role|>' -}}
{%- endif -%}"""
SIDE, ROWS_OF_A_TILE, MOST = 38, 9, 3


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(AutoConfig.for_model(**config)).eval()
    tokenizer, template, stop = _granite() if config["tie_word_embeddings"] else _llama()
    model.generation_config.eos_token_id = stop
    model.save_pretrained(folder)
    sizes = {"size": {"longest_edge": MOST * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(**sizes), tokenizer, image_seq_len=ROWS_OF_A_TILE, chat_template=template
    )
    _tokens.save_processor(processor, folder, image_seq_len=ROWS_OF_A_TILE)
    return folder


def _llama() -> tuple[Any, str, list[int]]:
    specials = (
        "<pad>", "<|begin_of_text|>", "<|end_of_text|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>",
    )  # fmt: skip
    tokenizer = _tokens.byte_level(
        specials, pad_token="<pad>", bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    )
    return tokenizer, LLAMA_TEMPLATE, [2, 5]


def _granite() -> tuple[Any, str, int]:
    places = range(1, MOST + 1)
    specials = (
        "<pad>", "<|end_of_text|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>",
        "<|start_of_role|>", "<|end_of_role|>", *(f"<row_{row}_col_{column}>" for row in places for column in places),
    )  # fmt: skip
    tokenizer = _tokens.byte_level(
        specials, pad_token="<pad>", bos_token="<|end_of_text|>", eos_token="<|end_of_text|>"
    )
    return tokenizer, GRANITE_TEMPLATE, 1
