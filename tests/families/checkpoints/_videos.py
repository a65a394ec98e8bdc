"""The video processors of `transformers` where torchvision is missing: their own code, with torchvision's functions for
scaling and normalising spelled with the operators of torch that these call (bit for bit what version 0.28 gives)."""

from __future__ import annotations

import sys
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import image_processing_backends, video_processing_utils


class Mode(Enum):
    """Filters by their names in torch."""

    LANCZOS = "lanczos"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


FILTERS = {1: Mode.LANCZOS, 2: Mode.BILINEAR, 3: Mode.BICUBIC}
"""By Pillow's numbers."""

MODULES = ("", ".transforms", ".transforms.v2", ".transforms.v2.functional")


def resize(frames: torch.Tensor, size: tuple[int, int], interpolation: Mode, antialias: bool) -> torch.Tensor:
    """In bytes throughout."""
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    scaled = torch.nn.functional.interpolate(
        frames.flatten(0, -4), size=size, mode=interpolation.value, align_corners=False, antialias=antialias
    )
    return scaled.unflatten(0, frames.shape[:-3])


def normalize(frames: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, inplace: bool) -> torch.Tensor:
    mean, std = (torch.as_tensor(values, dtype=frames.dtype)[:, None, None] for values in (mean, std))
    return (frames - mean) / std


def processor_class(module: str, name: str, patch: pytest.MonkeyPatch) -> Any:
    """The class, which works until ``patch`` is undone."""
    functions = SimpleNamespace(
        InterpolationMode=Mode, resize=resize, normalize=normalize, grayscale_to_rgb=lambda frames: frames
    )
    for user in (image_processing_backends, video_processing_utils):
        patch.setattr(user, "tvF", functions, raising=False)
    patch.setattr(image_processing_backends, "pil_torch_interpolation_mapping", FILTERS)
    patch.setattr(image_processing_backends, "is_torchvision_greater_or_equal", lambda version: True)
    with pytest.MonkeyPatch.context() as importing:
        for part in MODULES:
            importing.setitem(sys.modules, f"torchvision{part}", ModuleType(f"torchvision{part}"))
        return getattr(import_module(f"transformers.models.{module}"), name)


def processor_of(family: str, folder: Path, patch: pytest.MonkeyPatch) -> Any:
    """As the checkpoint in ``folder`` has it."""
    names = {"smolvlm": "SmolVLMVideoProcessor", "internvl": "InternVLVideoProcessor"}
    module = f"{family}.video_processing_{family}"
    return processor_class(module, names[family], patch).from_pretrained(folder)
