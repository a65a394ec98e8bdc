"""A checkpoint's prompt about one picture, written down for peers that do not read its processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from generating import processor_of

QUESTION = "QUESTION"


class Prompt(NamedTuple):
    """The texts before and after the picture, the latter with `QUESTION` in it, and what stands for the picture."""

    before: str
    after: str
    image: str
    rows: int

    def after_asked(self, question: str) -> str:
        return self.after.replace(QUESTION, question)

    def asked(self, question: str) -> str:
        """All of it, with a token for every row of the picture."""
        return self.before + self.image * self.rows + self.after_asked(question)


def read_prompt(path: Path) -> Prompt:
    return Prompt(**json.loads(path.read_text()))


def write_prompt(checkpoint: str, target: str, side: int = 512) -> None:
    """As the processor of the checkpoint writes it, in an environment that has `transformers`."""
    from PIL import Image
    from transformers import AutoConfig

    processor = processor_of(Path(checkpoint))
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    ids = processor(text=text, images=[Image.new("RGB", (side, side))])["input_ids"][0]
    image = AutoConfig.from_pretrained(checkpoint).image_token_id
    rows = [place for place, token in enumerate(ids) if token == image]
    words = processor.tokenizer
    before, after = words.decode(ids[: rows[0]]), words.decode(ids[rows[-1] + 1 :])
    prompt = Prompt(before, after, words.decode([image]), len(rows))
    Path(target).write_text(json.dumps(prompt._asdict(), indent=2) + "\n")
