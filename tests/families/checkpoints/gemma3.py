"""A tiny Gemma 3 checkpoint: pictures of 36 rows, and windows of 32 tokens."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Gemma3ForConditionalGeneration, Gemma3ImageProcessorPil, Gemma3Processor

SPECIALS = ("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<start_of_turn>", "<end_of_turn>")
TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model
' }}
{%- endif -%}
"""


def part(name: str) -> Any:
    """A file beside this one."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    gemma, tokens = part("_gemma"), part("_tokens")
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(AutoConfig.for_model(**config)).eval()
    gemma.draw(model)
    model.generation_config.update(
        bos_token_id=2, eos_token_id=[1, 9], pad_token_id=0, do_sample=True, top_k=64, top_p=0.95
    )
    model.save_pretrained(folder)
    named = {"boi_token": SPECIALS[0], "eoi_token": SPECIALS[1], "image_token": SPECIALS[2]}
    tokenizer = gemma.tokenizer(SPECIALS, extra_special_tokens=named)
    side, rows = config["vision_config"]["image_size"], config["mm_tokens_per_image"]
    pictures = Gemma3ImageProcessorPil(
        size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=None
    )
    processor = Gemma3Processor(pictures, tokenizer, TEMPLATE, image_seq_length=rows)
    tokens.save_processor(processor, folder, image_seq_length=rows)
    return folder
