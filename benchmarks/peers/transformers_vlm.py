"""`transformers` on any vision-language checkpoint: eager, greedy, with the cache.

Started as ``python transformers_vlm.py DTYPE PARENT`` where a worker is expected: loads the checkpoint that the
candidate names with its processor and `AutoModelForImageTextToText`, and answers with `generate`, as its authors show
it. A precision other than float32 is what the whole model computes in.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from generating import Generating, Told, processor_of

from mmedge.profiling.worker import main


class Transformers(Generating):
    """With pixels in the model's own precision."""

    def generate(self, inputs: dict[str, object], told: Told, limit: int | None) -> None:
        super().generate(inputs.to(self.model.dtype), told, limit)


def opener(folder: Path, *, backend: str | None, threads: int) -> Transformers:
    """The precision comes with the command: for mmedge it is no backend."""
    import torch
    from transformers import AutoModelForImageTextToText

    if threads:
        torch.set_num_threads(threads)
    processor = processor_of(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, sys.argv[1])).eval()
    software = {name: version(name) for name in ("torch", "transformers")}
    return Transformers(processor, model, (model.model, "get_image_features"), software)


if __name__ == "__main__":
    main(opener)
