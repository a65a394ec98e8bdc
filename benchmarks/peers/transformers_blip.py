"""`transformers` as a candidate beside bundles: the same pictures, the same tokens, the same protocol.

Started by `benchmarks/blip_base.py` in place of mmedge's own worker. A backend called ``transformers-float32`` or
``transformers-bfloat16`` loads the checkpoint with `AutoProcessor` and `from_pretrained` and answers with `generate`;
any other opens a bundle. Neither process imports what the other one needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmedge.profiling.worker import main
from mmedge.runtime.pipeline import Answer, Piece, load

PREFIX = "transformers-"


class Transformers:
    """A checkpoint run as its authors show it: greedy, with the cache, on all cores."""

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        import torch
        from transformers import AutoProcessor, BlipForConditionalGeneration

        self.backends: dict[str, str] = {}
        if threads:
            torch.set_num_threads(threads)
        self.torch = torch
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = BlipForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()

    def answer(
        self, task: str, picture: Path, text: str | None, *, limit: int | None, show: Callable[[Piece], None]
    ) -> Answer:
        from PIL import Image

        started = time.perf_counter()
        image = Image.open(picture).convert("RGB")
        decoded = time.perf_counter()
        inputs = self.processor(images=image, text=text, return_tensors="pt")
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        prepared = time.perf_counter()
        told = Told(show)
        with self.torch.inference_mode():
            tokens = self.model.generate(
                **inputs, max_new_tokens=limit, min_new_tokens=limit, do_sample=False, num_beams=1, streamer=told
            )
        stages = {"decode": (decoded - started) * 1e3, "preprocess": (prepared - decoded) * 1e3}
        text = self.processor.decode(tokens[0], skip_special_tokens=True)
        return Answer(text, tuple(told.tokens), "length", stages)


class Told:
    """A streamer of `generate`, which hears the prompt first and then every token."""

    def __init__(self, show: Callable[[Piece], None]) -> None:
        self.show = show
        self.tokens: list[int] = []
        self.prompt = True

    def put(self, value: Any) -> None:
        if not self.prompt:
            token = int(value.flatten()[0])
            self.tokens.append(token)
            self.show(Piece("", token, 0.0))
        self.prompt = False

    def end(self) -> None:
        pass


def opener(folder: Path, *, backend: str | None, threads: int) -> Any:
    """Whatever the name of the backend stands for."""
    if backend and backend.startswith(PREFIX):
        return Transformers(folder, backend.removeprefix(PREFIX), threads)
    return load(folder, backend=backend, threads=threads)


if __name__ == "__main__":
    main(opener)
