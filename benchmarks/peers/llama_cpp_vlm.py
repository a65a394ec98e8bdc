"""llama.cpp through `llama-cpp-python`, built from its source package for this processor.

    python llama_cpp_vlm.py make CHECKPOINT FOLDER Q8_0

makes what the worker opens: the language model in Q8_0 or Q4_0 as llama.cpp's own tools make it, and the vision tower.
Its converter travels in the source package only, and knows tokenizers by what they make of one text: it is told here
that ours is as the published one. llama.cpp shows a picture of SmolVLM as tiles and as a whole; here it sees the whole
only, which is one tile, as the others do with `do_image_splitting` off. It is called through its C interface, as its
own programs do, and samples greedily there. With SmolVLM its first answers are those of `transformers` in float32.
"""

from __future__ import annotations

import ctypes
import io
import json
import runpy
import subprocess
import sys
import tarfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import environment
from prompts import read_prompt, write_prompt
from stages import Stages

from mmedge.errors import BackendError, UsageError
from mmedge.profiling.worker import main
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Answer, Piece

VISION = "q8_0"
"""Of the vision tower: as fast as f16, and half as large."""
SPLITS = {"smolvlm": "smollm", "idefics3": "smollm", "qwen2_vl": "qwen2"}
"""How a model's tokenizer splits a text, by llama.cpp's names."""
CONTEXT = 1024
"""Tokens that the cache is for, as many as the longest prompt and answer of the benchmark need."""
BATCH = 512


class LlamaCpp:
    """A folder that `make` made."""

    def __init__(self, folder: Path, threads: int) -> None:
        import llama_cpp
        from llama_cpp import mtmd_cpp

        self.backends: dict[str, str] = {}
        self.software = {"llama-cpp-python": version("llama-cpp-python")}
        self.library, self.pictures = llama_cpp, mtmd_cpp
        self.prompt = read_prompt(folder / "prompt.json")
        llama_cpp.llama_backend_init()
        self.model = _made(
            llama_cpp.llama_model_load_from_file(
                str(folder / "text.gguf").encode(), llama_cpp.llama_model_default_params()
            )
        )
        self.words = llama_cpp.llama_model_get_vocab(self.model)
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = CONTEXT, BATCH, BATCH
        settings.n_threads = settings.n_threads_batch = threads or 2
        self.context = _made(llama_cpp.llama_init_from_model(self.model, settings))
        self.sampler = llama_cpp.llama_sampler_init_greedy()
        seeing = mtmd_cpp.mtmd_context_params_default()
        seeing.use_gpu, seeing.print_timings, seeing.n_threads = False, False, threads or 2
        self.vision = _made(mtmd_cpp.mtmd_init_from_file(str(folder / "vision.gguf").encode(), self.model, seeing))

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

        if task != "ask":
            raise UsageError(f"this peer cannot `{task}`", hint="it can: ask")
        stages = Stages(clock)
        stages.begin("decode")
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        stages.begin("preprocess")
        before, after = self.tokens_of(self.prompt.before), self.tokens_of(self.prompt.after_asked(text or ""))
        chunks = self.chunks_of(image)
        whole = self.whole_picture(chunks)
        stages.begin("encode")
        _check(self.pictures.mtmd_encode_chunk(self.vision, whole), "encode the picture")
        stages.begin("prefill")
        self.library.llama_memory_clear(self.library.llama_get_memory(self.context), True)
        self.place = 0
        self.read(before)
        self.read_picture(whole)
        self.read(after)
        self.pictures.mtmd_input_chunks_free(chunks)
        told = self.told(limit or 64, stages, show)
        stages.begin("detokenise")
        written = b"".join(map(self.bytes_of, told)).decode(errors="replace")
        stages.end()
        return Answer(written.strip(), tuple(told), "length" if len(told) == limit else "stop", {})

    def told(self, limit: int, stages: Stages, show: Callable[[Piece], None]) -> list[int]:
        """The answer's tokens."""
        tokens: list[int] = []
        while True:
            token = self.library.llama_sampler_sample(self.sampler, self.context, -1)
            if self.library.llama_vocab_is_eog(self.words, token):
                return tokens
            tokens.append(token)
            show(Piece("", token, 0.0))
            if len(tokens) == 1:
                stages.begin("decode_loop")
            if len(tokens) == limit:
                return tokens
            self.read([token])

    def read(self, tokens: list[int]) -> None:
        array = (self.library.llama_token * len(tokens))(*tokens)
        batch = self.library.llama_batch_get_one(array, len(tokens))
        # By itself llama.cpp would go on after the time of a picture, though it is wider than that.
        batch.pos = (self.library.llama_pos * len(tokens))(*range(self.place, self.place + len(tokens)))
        self.place += len(tokens)
        _check(self.library.llama_decode(self.context, batch), "read the prompt")

    def read_picture(self, chunk: Any) -> None:
        """What the vision tower saw."""
        after = self.library.llama_pos(0)
        rows = self.pictures.mtmd_get_output_embd(self.vision)
        code = self.pictures.mtmd_helper_decode_image_chunk(
            self.vision,
            self.context,
            chunk,
            rows,
            self.place,
            0,
            BATCH,
            ctypes.byref(after),
            _no_callback(self.pictures),
            None,
        )
        _check(code, "read the picture")
        self.place = after.value

    def chunks_of(self, image: Any) -> Any:
        """What llama.cpp makes of a picture."""
        pixels, (width, height) = image.tobytes(), image.size
        bitmap = self.pictures.mtmd_bitmap_init(width, height, (ctypes.c_uint8 * len(pixels)).from_buffer_copy(pixels))
        marker = self.pictures.mtmd_default_marker()
        text = self.pictures.mtmd_input_text(marker, len(marker), False, True)
        chunks = self.pictures.mtmd_input_chunks_init()
        bitmaps = (self.pictures.mtmd_bitmap_p_ctypes * 1)(bitmap)
        _check(self.pictures.mtmd_tokenize(self.vision, chunks, ctypes.byref(text), bitmaps, 1), "cut the picture")
        self.pictures.mtmd_bitmap_free(bitmap)
        return chunks

    def whole_picture(self, chunks: Any) -> Any:
        """The last of its parts, after the tiles."""
        parts = range(self.pictures.mtmd_input_chunks_size(chunks))
        every = [self.pictures.mtmd_input_chunks_get(chunks, part) for part in parts]
        kind = self.pictures.MTMD_INPUT_CHUNK_TYPE_IMAGE
        return [chunk for chunk in every if self.pictures.mtmd_input_chunk_get_type(chunk) == kind][-1]

    def tokens_of(self, text: str) -> list[int]:
        data = text.encode()
        room = (self.library.llama_token * (len(data) + 8))()
        count = self.library.llama_tokenize(self.words, data, len(data), room, len(room), False, True)
        return list(room[:count])

    def bytes_of(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(256)
        return room.raw[: self.library.llama_token_to_piece(self.words, token, room, len(room), 0, False)]

    def close(self) -> None:
        self.pictures.mtmd_free(self.vision)
        self.library.llama_free(self.context)
        self.library.llama_model_free(self.model)


def _made(pointer: Any) -> Any:
    if not pointer:
        raise BackendError("llama.cpp could not open the model", hint="what it wrote above says why")
    return pointer


def _check(code: int, what: str) -> None:
    if code:
        raise BackendError(f"llama.cpp could not {what}: {code}", hint="what it wrote above may say why")


def _no_callback(pictures: Any) -> Any:
    return pictures.mtmd_helper_post_decode_callback()


# What is made once


def make(checkpoint: Path, folder: Path, kind: str) -> None:
    """In the environment of llama.cpp; its converter needs that of `transformers`."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder.with_name(f"{checkpoint.name}.gguf")
    converter = [environment.python_of("transformers_vlm"), __file__, "convert", sources(), checkpoint]
    if not whole.exists():
        subprocess.run([*converter, "--outtype", "bf16", "--outfile", whole], check=True)
    vision = ["--mmproj", "--outtype", VISION, "--outfile", folder / "vision.gguf"]
    subprocess.run([*converter, *vision], check=True)
    subprocess.run([converter[0], __file__, "prompt", checkpoint, folder / "prompt.json"], check=True)
    quantize(whole, folder / "text.gguf", kind)


def quantize(source: Path, target: Path, kind: str) -> None:
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.nthread, settings.ftype = 2, getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings = ctypes.byref(settings)
    _check(llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), settings), "quantize")


def sources() -> Path:
    """llama.cpp as it lies in the source package."""
    folder = environment.WORK / "llama_cpp_sources"
    if not (found := [*folder.glob("*/vendor/llama.cpp")]):
        wanted = f"llama-cpp-python=={version('llama-cpp-python')}"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--dest", folder, wanted], check=True)
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        found = [*folder.glob("*/vendor/llama.cpp")]
    return found[0]


def convert(source: str, *arguments: str) -> None:
    """llama.cpp's converter, with a tokenizer that it cannot know."""
    sys.path.insert(0, source)
    from conversion import base  # type: ignore[import-not-found]

    def splits(model: Any, _: Any) -> str:
        return SPLITS[json.loads((model.dir_model / "config.json").read_text())["model_type"]]

    base.TextModel.get_vocab_base_pre = splits
    sys.argv = ["convert_hf_to_gguf.py", *arguments]
    runpy.run_path(f"{source}/convert_hf_to_gguf.py", run_name="__main__")


def opener(folder: Path, *, backend: str | None, threads: int) -> LlamaCpp:
    return LlamaCpp(folder, threads)


MODES: dict[str, Callable[..., None]] = {
    "make": lambda checkpoint, folder, kind: make(Path(checkpoint), Path(folder), kind),
    "convert": convert,
    "prompt": write_prompt,
}

if __name__ == "__main__":
    MODES.get(sys.argv[1], lambda *_: main(opener))(*sys.argv[2:])
