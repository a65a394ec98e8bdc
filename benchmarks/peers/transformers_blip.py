"""`transformers` as a candidate beside bundles: the same pictures, the same tokens, the same stages.

Started as ``python transformers_blip.py DTYPE PARENT`` where a worker is expected: loads the checkpoint that the
candidate names with `AutoProcessor` and `from_pretrained`, and answers with `generate`, as its authors show it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from generating import Told
from stages import Stages

from mmedge.errors import UsageError
from mmedge.profiling.worker import main
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Answer, Piece


class Transformers:
    """A checkpoint run greedily, with the cache."""

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        import torch
        from transformers import AutoProcessor, BlipForConditionalGeneration

        self.backends: dict[str, str] = {}
        self.software = {name: version(name) for name in ("torch", "transformers")}
        if threads:
            torch.set_num_threads(threads)
        self.torch = torch
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = BlipForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        self.stages = Stages(Clock())
        self.model.vision_model.register_forward_pre_hook(lambda *_: self.stages.begin("encode"))
        self.model.vision_model.register_forward_hook(lambda *_: self.stages.begin("prefill"))

    def answer(
        self,
        task: str,
        picture: bytes,
        text: str | None,
        *,
        limit: int | None,
        show: Callable[[Piece], None],
        clock: Clock,
    ) -> Answer:
        from PIL import Image

        if task != "caption":
            raise UsageError(f"this checkpoint cannot `{task}`", hint="it can: caption")
        self.stages = stages = Stages(clock)
        stages.begin("decode")
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        stages.begin("preprocess")
        inputs = self.processor(images=image, text=text, return_tensors="pt").to(self.model.dtype)
        told = Told(stages, show, self.model.config.text_config.sep_token_id)
        with self.torch.inference_mode():
            self.model.generate(**inputs, max_new_tokens=limit, do_sample=False, num_beams=1, streamer=told)
        stages.begin("detokenise")
        written = self.processor.decode(told.tokens, skip_special_tokens=True)
        stages.end()
        return Answer(written.strip(), tuple(told.tokens), "length" if len(told.tokens) == limit else "stop", {})

    def close(self) -> None:
        del self.model


def opener(folder: Path, *, backend: str | None, threads: int) -> Transformers:
    """The precision comes with the command: for mmedge it is no backend."""
    return Transformers(folder, sys.argv[1], threads)


if __name__ == "__main__":
    main(opener)
