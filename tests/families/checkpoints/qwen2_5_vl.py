"""A tiny Qwen2.5-VL checkpoint."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

_spec = importlib.util.spec_from_file_location("_qwen_vl", Path(__file__).with_name("_qwen_vl.py"))
_qwen_vl = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_qwen_vl)


def make(config: dict[str, Any], folder: Path) -> Path:
    """Write the whole checkpoint with random weights into ``folder``."""
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(AutoConfig.for_model(**config)).eval()
    return _qwen_vl.save(model, Qwen2_5_VLProcessor, _qwen_vl.TEMPLATE, folder)
