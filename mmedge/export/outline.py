"""A model without its weights: built on torch's meta device, where tensors have shapes and no storage.

It shows what a configuration asks for before any memory is taken, whoever wrote the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from mmedge.core.machine import usable_memory
from mmedge.errors import MmedgeError, ModelError, ResourceError
from mmedge.export.weights import first_line

MOST_TENSORS = 10_000
LARGEST = 10**12
"""Weights of a model that is taken for one: more than the largest published ones have."""


def outline(kind: type[torch.nn.Module], settings: Any, folder: Path) -> torch.nn.Module:
    """The model class ``kind`` with ``settings``, the configuration that ``folder`` holds.

    Raises:
        ModelError: no model can be built like that.
        ResourceError: it would be larger than any model.
    """
    try:
        with torch.device("meta"), _bounded(folder):
            return kind(settings).eval().float()  # whatever a checkpoint was saved in
    except MmedgeError:
        raise
    except Exception as error:  # model classes raise whatever their many parts raise
        if "overflow" in str(error):
            raise ResourceError(f"`{folder}` describes a model too large to be counted") from error
        raise ModelError(f"`{folder / 'config.json'}` describes no model: {first_line(error)}") from error


@contextmanager
def _bounded(folder: Path) -> Iterator[None]:
    """Stop a model that grows beyond all bounds while it is being built."""
    tensors = total = 0

    def count(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal tensors, total
        tensors, total = tensors + 1, total + (0 if parameter is None else parameter.numel())
        if tensors > MOST_TENSORS:
            raise ResourceError(f"`{folder}` describes a model of more than {MOST_TENSORS} tensors")
        if total > LARGEST:
            raise ResourceError(
                f"`{folder}` describes a model of {total:.1e} weights, {total * 4 / 2**30:.1e} GiB in float32; "
                f"this machine has {usable_memory() / 2**30:.1f}",
                hint="is the number in config.json meant like that?",
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
