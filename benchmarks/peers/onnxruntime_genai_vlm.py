"""`onnxruntime-genai`: the language model of a checkpoint alone, since it has no vision tower of these.

    python onnxruntime_genai_vlm.py make CHECKPOINT FOLDER int4

makes what the worker opens, with the builder that comes with it. That of version 0.18.0 says of SmolVLM, Idefics3,
LLaVA-OneVision, InternVL and Qwen2-VL: "NotImplementedError: The ... model is not currently supported.". So the
language model is saved as a checkpoint of its own, and reads as many tokens as the others do: where they have rows of
a picture, it has the token that stands for one. Its time to the first token is without the picture's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from prompts import read_prompt, write_prompt
from stages import Stages

from mmedge.errors import UsageError
from mmedge.profiling.worker import main
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Answer, Piece

WORDS = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


class OnnxRuntimeGenai:
    """A folder that `make` made."""

    def __init__(self, folder: Path, threads: int) -> None:
        import onnxruntime_genai
        from tokenizers import Tokenizer

        self.backends: dict[str, str] = {}
        self.software = {name: version(name) for name in ("onnxruntime-genai", "onnxruntime")}
        self.library = onnxruntime_genai
        config = onnxruntime_genai.Config(str(folder))
        session = {"session_options": {"intra_op_num_threads": threads}} if threads else {}
        config.overlay(json.dumps({"model": {"decoder": session}}))
        self.model = onnxruntime_genai.Model(config)
        self.words = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.prompt = read_prompt(folder / "prompt.json")

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
        if task != "ask":
            raise UsageError(f"this peer cannot `{task}`", hint="it can: ask")
        stages = Stages(clock)
        stages.begin("preprocess")
        ids = self.words.encode(self.prompt.asked(text or ""), add_special_tokens=False).ids
        stages.begin("prefill")
        settings = self.library.GeneratorParams(self.model)
        settings.set_search_options(max_length=len(ids) + (limit or 64), do_sample=False)
        generator = self.library.Generator(self.model, settings)
        generator.append_tokens(ids)
        told: list[int] = []
        while not generator.is_done():
            generator.generate_next_token()
            told.append(int(generator.get_next_tokens()[0]))
            show(Piece("", told[-1], 0.0))
            if len(told) == 1:
                stages.begin("decode_loop")
        stages.begin("detokenise")
        written = self.words.decode(told)
        stages.end()
        return Answer(written.strip(), tuple(told), "length" if len(told) == limit else "stop", {})

    def close(self) -> None:
        del self.model


def make(checkpoint: str, folder: str, precision: str) -> None:
    builder = [sys.executable, "-E", "-m", "onnxruntime_genai.models.builder", "--execution_provider", "cpu"]
    with tempfile.TemporaryDirectory() as text, tempfile.TemporaryDirectory() as cache:
        save_language_model(checkpoint, text)
        options = ["--input", text, "--output", folder, "--precision", precision, "--cache_dir", cache]
        subprocess.run([*builder, *options], check=True)
    shutil.copy(Path(checkpoint) / "tokenizer.json", folder)
    write_prompt(checkpoint, f"{folder}/prompt.json")


def save_language_model(checkpoint: str, folder: str) -> None:
    """As a checkpoint that is nothing else."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    whole = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.bfloat16)
    with torch.device("meta"):
        alone = AutoModelForCausalLM.from_config(whole.config.text_config)
    alone.model, alone.lm_head = whole.model.get_decoder(), whole.lm_head
    alone.save_pretrained(folder)
    for name in WORDS:
        shutil.copy(Path(checkpoint) / name, folder)


def opener(folder: Path, *, backend: str | None, threads: int) -> OnnxRuntimeGenai:
    return OnnxRuntimeGenai(folder, threads)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(*sys.argv[2:])
    else:
        main(opener)
