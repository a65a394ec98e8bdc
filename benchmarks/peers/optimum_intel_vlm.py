"""`optimum-intel`: a checkpoint's own `generate` over OpenVINO.

    python optimum_intel_vlm.py make CHECKPOINT FOLDER 8

exports the checkpoint with weights of 8 or 4 bits, as ``optimum-cli export openvino`` does, for itself and for
``openvino-genai``. What its version 2.2.0 refuses, with the whole message:

- SmolVLM and Idefics3 beside a newer `transformers` than 4.57.6: "The current version of Transformers does not allow
  for the export of the model. Maximum required is 4.57.6, got: 5.5.4"
- groups of 128 weights, its own choice for 4 bits, where a layer's width is no multiple, as 576 is not; 64 work.
"""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from generating import Generating, processor_of

from mmedge.profiling.worker import main

GROUP = 64
"""Weights with a scale in common, of 4 bits."""


def opener(folder: Path, *, backend: str | None, threads: int) -> Generating:
    hide_torchvision()
    from optimum.intel import OVModelForVisualCausalLM

    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads} if threads else {}
    model = OVModelForVisualCausalLM.from_pretrained(folder, ov_config={"PERFORMANCE_HINT": "LATENCY"} | settings)
    software = {name: version(name) for name in ("optimum-intel", "openvino", "transformers")}
    return Generating(processor_of(folder), model, (model, "get_vision_embeddings"), software)


def hide_torchvision() -> None:
    """It is of another build than torch without CUDA, and fails: "operator torchvision::nms does not exist"."""
    sys.modules["torchvision"] = None  # type: ignore[assignment]


def make(checkpoint: str, folder: str, bits: str) -> None:
    """With the command that its documentation shows."""
    hide_torchvision()
    from optimum.commands.optimum_cli import main as command

    group = [] if bits == "8" else ["--group-size", str(GROUP)]
    options = ["--task", "image-text-to-text", "--weight-format", f"int{bits}", *group]
    sys.argv = ["optimum-cli", "export", "openvino", "--model", checkpoint, *options, folder]
    command()
    shutil.copy(Path(checkpoint) / "processor_config.json", folder)  # which it may leave out without torchvision


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
    else:
        main(opener)
