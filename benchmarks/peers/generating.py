"""What answers with a `generate` of the kind that `transformers` has: its stages timed, its tokens told.

Shared by peers, in whose environments it runs; it needs nothing that is not in each of them.
"""

from __future__ import annotations

import functools
import inspect
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages import Stages

from mmedge.errors import UsageError
from mmedge.runtime.clock import Clock
from mmedge.runtime.pipeline import Answer, Piece


def processor_of(folder: Path) -> Any:
    """The checkpoint's processor, without its part for videos where it has one: that needs torchvision."""
    import transformers

    settings = json.loads((folder / "processor_config.json").read_text())
    kind = getattr(transformers, settings.pop("processor_class"))
    if "video_processor" not in inspect.signature(kind.__init__).parameters:
        return transformers.AutoProcessor.from_pretrained(folder)

    class Pictures(kind):
        def check_argument_for_proper_class(self, name: str, argument: Any) -> Any:
            return type(argument)

    pixels = transformers.AutoImageProcessor.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    return Pictures(pixels, words, None, chat_template=words.chat_template, **settings)


class Told:
    """A streamer of `generate`, which hears the prompt first and then every token."""

    def __init__(self, stages: Stages, show: Callable[[Piece], None], stop: int | None) -> None:
        self.stages = stages
        self.show = show
        self.stop = stop
        self.tokens: list[int] = []
        self.prompt = True

    def put(self, value: Any) -> None:
        token = int(value.flatten()[-1])
        if not self.prompt and token != self.stop:
            self.tokens.append(token)
            self.show(Piece("", token, 0.0))
        if not self.prompt and len(self.tokens) < 2:
            self.stages.begin("decode_loop")
        self.prompt = False

    def end(self) -> None:
        pass


class Generating:
    """A vision-language checkpoint asked about one picture, greedily, with the cache.

    Args:
        processor: of the checkpoint, with its chat template.
        model: has `generate`.
        sees: what owns the method that turns a picture into rows of the prompt, and its name.
        software: versions, by name.
    """

    def __init__(self, processor: Any, model: Any, sees: tuple[Any, str], software: dict[str, str]) -> None:
        self.backends: dict[str, str] = {}
        self.software = software
        self.processor, self.model = processor, model
        self.stages = Stages(Clock())
        self.seen = False
        owner, name = sees
        look = getattr(owner, name)

        @functools.wraps(look)  # `generate` looks at its parameters
        def timed(*arguments: Any, **named: Any) -> Any:
            if self.seen:  # optimum-intel looks for a picture at every token
                return look(*arguments, **named)
            self.seen = True
            self.stages.begin("encode")
            found = look(*arguments, **named)
            self.stages.begin("prefill")
            return found

        setattr(owner, name, timed)

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
        self.stages, self.seen = Stages(clock), False
        stages = self.stages
        stages.begin("decode")
        image = Image.open(io.BytesIO(picture)).convert("RGB")
        stages.begin("preprocess")
        inputs = self.processor(text=self.prompt(text or ""), images=[image], return_tensors="pt")
        stop = self.model.generation_config.eos_token_id
        told = Told(stages, show, stop)
        self.generate(inputs, told, limit)
        stages.begin("detokenise")
        written = self.processor.decode(told.tokens, skip_special_tokens=True)
        stages.end()
        return Answer(written.strip(), tuple(told.tokens), "length" if len(told.tokens) == limit else "stop", {})

    def prompt(self, question: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(messages, add_generation_prompt=True)

    def generate(self, inputs: Any, told: Told, limit: int | None) -> None:
        import torch

        with torch.inference_mode():
            self.model.generate(**inputs, max_new_tokens=limit, do_sample=False, num_beams=1, streamer=told)

    def close(self) -> None:
        del self.model
