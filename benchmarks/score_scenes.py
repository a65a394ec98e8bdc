"""Score the built-in captioner `builtin:scenes` on scenes that neither training nor calibration has seen.

    python benchmarks/score_scenes.py

Greedy `generate` of transformers on the checkpoint as shipped: a caption or an answer counts when it is exactly right.
The first scenes of the split are captioned, the next ones are asked one question each.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
import transformers
from transformers import AutoProcessor, BlipForConditionalGeneration

from mmedge.builtin.scenes import draw

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "mmedge" / "builtin" / "scenes" / "checkpoint"
RESULTS = ROOT / "benchmarks" / "results" / "scenes.json"
BATCH = 64


class Task(NamedTuple):
    """What to write about the scene of a seed."""

    seed: int
    kind: str  # scores are also given for each kind
    prompt: str  # empty for a caption
    expected: str


class Score(NamedTuple):
    """How many answers were right, and of how many."""

    right: int
    of: int
    share: float


def caption_task(seed: int) -> Task:
    scene = draw.imagine(seed)
    return Task(seed, scene.kind, "", draw.caption(scene))


def question_task(seed: int) -> Task:
    """One question: first a kind among those that the scene allows, then one of that kind."""
    chance = random.Random(f"question for {seed}")
    by_kind = defaultdict(list)
    for question, answer in draw.questions(draw.imagine(seed)):
        by_kind[draw.question_kind(question)].append((question, answer))
    kind = chance.choice(sorted(by_kind))
    return Task(seed, kind, *chance.choice(by_kind[kind]))


class Answering(Protocol):
    """A checkpoint as anyone would use it."""

    def answers(self, tasks: Sequence[Task]) -> list[str]:
        """What the model writes for each task, without the prompt."""
        ...


class Captioner(Answering):
    """BLIP, which captions without a prompt and answers one."""

    def __init__(self, folder: Path) -> None:
        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = BlipForConditionalGeneration.from_pretrained(folder).eval()

    def answers(self, tasks: Sequence[Task]) -> list[str]:
        written: dict[int, str] = {}
        for prompts_of_one_length in self.by_prompt_length(tasks):
            for start in range(0, len(prompts_of_one_length), BATCH):
                batch = prompts_of_one_length[start : start + BATCH]
                written |= dict(zip((task.seed for task in batch), self.generate(batch), strict=True))
        return [written[task.seed] for task in tasks]

    def by_prompt_length(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """BLIP counts positions from the left whatever is padding, so a batch needs prompts of one length."""
        groups = defaultdict(list)
        for task in tasks:
            groups[len(self.processor.tokenizer.tokenize(task.prompt))].append(task)
        return list(groups.values())

    def generate(self, batch: Sequence[Task]) -> list[str]:
        prompts = [task.prompt for task in batch] if batch[0].prompt else None
        pictures = [draw.paint(draw.imagine(task.seed)) for task in batch]
        inputs = self.processor(images=pictures, text=prompts, return_tensors="pt")
        tokens = self.model.generate(**inputs, max_new_tokens=24)
        asked = inputs["input_ids"].shape[1] - 1 if prompts else 0  # generate drops the closing separator
        return self.processor.batch_decode(tokens[:, asked:], skip_special_tokens=True)


def score(tasks: Sequence[Task], answers: Sequence[str]) -> dict[str, Score]:
    """Of all tasks, then of each kind."""
    right = defaultdict(list)
    for task, answer in zip(tasks, answers, strict=True):
        for kind in ("all", task.kind):
            right[kind].append(answer == task.expected)
    return {kind: Score(sum(hits), len(hits), round(sum(hits) / len(hits), 4)) for kind, hits in right.items()}


def report(scores: dict[str, Score], seeds: range) -> dict[str, object]:
    shown = {kind: {"right": hits.right, "of": hits.of, "share": hits.share} for kind, hits in sorted(scores.items())}
    return {"seeds": [seeds.start, seeds.stop], "scores": shown}


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}


def measure(description: str | None, checkpoint: Path, results: Path, load: Callable[[Path], Answering]) -> None:
    """Read the command line, score a checkpoint and write the results."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=checkpoint)
    parser.add_argument("--scenes", type=int, default=1000, help="for captions, and as many for questions")
    parser.add_argument("--output", type=Path, default=results)
    options = parser.parse_args()
    held_out = draw.SPLITS["held-out"]
    model = load(options.checkpoint)
    result: dict[str, object] = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": versions(),
        "machine": platform.machine(),
    }
    for name, make_task, seeds in (
        ("captions", caption_task, held_out[: options.scenes]),
        ("questions", question_task, held_out[options.scenes : 2 * options.scenes]),
    ):
        tasks = [make_task(seed) for seed in seeds]
        scores = score(tasks, model.answers(tasks))
        result[name] = report(scores, seeds)
        print(name, ", ".join(f"{kind} {hits.share:.1%} of {hits.of}" for kind, hits in scores.items()), sep=": ")
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    measure(__doc__, CHECKPOINT, RESULTS, Captioner)
