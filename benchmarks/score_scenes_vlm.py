"""Score the built-in vision-language model `builtin:scenes-vlm` as `score_scenes.py` does the captioner.

    python benchmarks/score_scenes_vlm.py

The same held-out scenes, captions and questions, each a conversation of one turn in the checkpoint's chat template.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from score_scenes import BATCH, ROOT, Answering, Task, measure
from transformers import AutoImageProcessor, AutoTokenizer, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from mmedge.builtin.scenes import draw

CHECKPOINT = ROOT / "mmedge" / "builtin" / "scenes-vlm" / "checkpoint"
RESULTS = ROOT / "benchmarks" / "results" / "scenes_vlm.json"
CAPTION_PROMPT = "Describe the picture."


class VisionLanguageModel(Answering):
    """SmolVLM in float32, with the parts of its processor: the whole of it wants torchvision, for videos."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.pictures = AutoImageProcessor.from_pretrained(folder)
        self.model = SmolVLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.picture_text = get_image_prompt_string(
            0, 0, self.model.model.image_seq_len, "<fake_token_around_image>", "<image>", "<global-img>"
        )

    def answers(self, tasks: Sequence[Task]) -> list[str]:
        batches = (tasks[start : start + BATCH] for start in range(0, len(tasks), BATCH))
        return [answer for batch in batches for answer in self.generate(batch)]

    def generate(self, batch: Sequence[Task]) -> list[str]:
        texts = self.tokenizer([self.prompt(task) for task in batch], padding=True, return_tensors="pt")
        pictures = self.pictures([[draw.paint(draw.imagine(task.seed))] for task in batch], return_tensors="pt")
        tokens = self.model.generate(**texts, **pictures, max_new_tokens=32)
        answers = self.tokenizer.batch_decode(tokens[:, texts["input_ids"].shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]

    def prompt(self, task: Task) -> str:
        """A turn about a picture, with as many image tokens as the model makes of it."""
        asked = [{"type": "image"}, {"type": "text", "text": task.prompt or CAPTION_PROMPT}]
        turns = [{"role": "user", "content": asked}]
        written = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return written.replace("<image>", self.picture_text)


if __name__ == "__main__":
    measure(__doc__, CHECKPOINT, RESULTS, VisionLanguageModel)
