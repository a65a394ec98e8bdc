"""A tiny CLAP checkpoint: sounds at 8 kHz, of which it hears two seconds, and texts of at most 78 tokens."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from tokenizers import processors
from transformers import AutoConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

_spec = importlib.util.spec_from_file_location("_tokens", Path(__file__).with_name("_tokens.py"))
_tokens = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_tokens)


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    model = ClapModel(AutoConfig.for_model(**config)).eval()
    _spread(model)
    model.save_pretrained(folder)
    specials = ("<s>", "<pad>", "</s>")
    tokenizer = _tokens.byte_level(specials, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fuses = config["audio_config"].get("enable_fusion", False)
    extractor = ClapFeatureExtractor(
        sampling_rate=8_000,
        hop_length=80,
        max_length_s=2,
        fft_window_size=512,
        frequency_max=4_000,
        truncation="fusion" if fuses else "rand_trunc",
    )
    _tokens.save_processor(ClapProcessor(extractor, tokenizer), folder)
    return folder


def _spread(model: ClapModel) -> None:
    """As after training: by themselves biases, tables and the statistics of normalisation are 0 or 1. Those of the last
    layers stay small, or all sounds would be alike."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith(("bias", "bias_table", "running_mean")):
            last = "projection" in name or "audio_encoder.norm" in name
            torch.nn.init.normal_(tensor, std=0.01 if last else 0.2)
    bands = model.audio_model.audio_encoder.batch_norm
    torch.nn.init.normal_(bands.running_mean, -30, 5)
    torch.nn.init.uniform_(bands.running_var, 100, 400)
