"""`openvino-genai`: its pipeline for vision-language models, on what `optimum-intel` exported.

    python openvino_genai_vlm.py make CHECKPOINT FOLDER 8

exports in the environment of `optimum_intel_vlm`. Version 2026.4.1 opens Qwen2-VL; of others it says: "Unsupported
'smolvlm' VLM model type" (and so 'idefics3', 'llava_onevision', 'internvl'). It encodes a picture and reads the prompt
in one call: both are the stage ``prefill``.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import environment
from stages import Stages

from mmedge.errors import UsageError
from mmedge.profiling.worker import main
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Answer, Piece


class OpenvinoGenai:
    """A folder that `make` made."""

    def __init__(self, folder: Path, threads: int) -> None:
        import openvino_genai
        from tokenizers import Tokenizer

        self.backends: dict[str, str] = {}
        self.software = {name: version(name) for name in ("openvino-genai", "openvino")}
        self.library = openvino_genai
        settings = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        self.pipeline = openvino_genai.VLMPipeline(str(folder), "CPU", **settings)
        self.words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.stop: int = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]

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
        import numpy as np
        import openvino
        from PIL import Image

        if task != "ask":
            raise UsageError(f"this peer cannot `{task}`", hint="it can: ask")
        stages = Stages(clock)
        stages.begin("decode")
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        stages.begin("preprocess")
        pixels = openvino.Tensor(np.asarray(image)[None])
        settings = self.library.GenerationConfig(max_new_tokens=limit or 64, do_sample=False)
        streamer = self.streamer(stages, show)
        stages.begin("prefill")
        self.pipeline.generate(text or "", images=[pixels], generation_config=settings, streamer=streamer)
        stages.begin("detokenise")
        told = [token for token in streamer.tokens if token != self.stop]
        written = self.words.decode(told)
        stages.end()
        return Answer(written.strip(), tuple(told), "length" if len(told) == limit else "stop", {})

    def streamer(self, stages: Stages, show: Callable[[Piece], None]) -> Any:
        """What hears of every token."""
        library = self.library

        class Told(library.StreamerBase):
            def __init__(self) -> None:
                super().__init__()
                self.tokens: list[int] = []

            def write(self, token: int | list[int]) -> Any:
                for each in [token] if isinstance(token, int) else token:
                    self.tokens.append(each)
                    show(Piece("", each, 0.0))
                if len(self.tokens) == 1:
                    stages.begin("decode_loop")
                return library.StreamingStatus.RUNNING

            def end(self) -> None:
                pass

        return Told()

    def close(self) -> None:
        del self.pipeline


def make(checkpoint: str, folder: str, bits: str) -> None:
    exporter = [*environment.command("optimum_intel_vlm"), "make", checkpoint, folder, bits]
    subprocess.run(exporter, check=True)


def opener(folder: Path, *, backend: str | None, threads: int) -> OpenvinoGenai:
    return OpenvinoGenai(folder, threads)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
    else:
        main(opener)
