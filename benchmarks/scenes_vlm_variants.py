"""What each precision of `builtin:scenes-vlm` loses, on each engine: exact captions, right answers, and its choices.

    python benchmarks/scenes_vlm_variants.py [--scenes 500] [--fresh]

Held-out scenes, as `score_scenes_vlm.py` takes them. Beside the task: of the tokens that the float32 model answers
with, read by each variant, how often its likeliest token is the same (top 1), and how far its distribution is from that
of float32 (Kullback-Leibler divergence, natural logarithm); and how many steps prompt lookup needs a token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from msgspec.structs import replace
from score_scenes import ROOT, Answering, Task, caption_task, question_task, score, versions

import mmedge
from mmedge.builtin.scenes import draw
from mmedge.core.family import Prompt, Request
from mmedge.runtime.decode import decode, read_prompt
from mmedge.runtime.pipeline import Pipeline

WORK = ROOT / "benchmarks" / ".work"
RESULTS = ROOT / "benchmarks" / "results" / "scenes_vlm_variants.json"
PRECISIONS = ("float32", "int8-weights", "int4-weights")
ENGINES = ("onnxruntime", "openvino")
COMPARED = 100
"""Captions whose distributions are compared."""


class Variant(Answering):
    """A bundle on an engine."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.tokens = self.steps = 0

    def answers(self, tasks: Sequence[Task]) -> list[str]:
        return [self.answer(task) for task in tasks]

    def answer(self, task: Task) -> str:
        """Each token is counted, and each step that it took."""
        engine, step = self.pipeline.engine, self.pipeline.engine._step

        def counted(*arguments: object) -> np.ndarray:
            self.steps += 1
            return step(*arguments)

        engine._step = counted
        try:
            said = self.pipeline.answer("ask" if task.prompt else "caption", picture(task), task.prompt or None)
        finally:
            engine._step = step
        self.tokens += len(said.tokens) + 1
        return said.text


def picture(task: Task) -> np.ndarray:
    return np.asarray(draw.paint(draw.imagine(task.seed)))


def bundle_of(precision: str, fresh: bool) -> Path:
    """Exported unless it is there."""
    folder = WORK / f"scenes-vlm-{precision}.bundle"
    if fresh or not folder.exists():
        mmedge.export("builtin:scenes-vlm", output=folder, target="cpu", precision=precision, force=True)
    return folder


def prompts(pipeline: Pipeline, tasks: Sequence[Task]) -> Iterator[Prompt]:
    """Of captions, with what the pipeline answers behind them."""
    for task in tasks:
        prompt = pipeline.prepare(Request((picture(task),)))
        engine = pipeline.engine
        engine.begin(engine.encode(prompt))
        written = list(decode(engine.choose, prompt, limit=64))
        yield replace(prompt, tokens=np.array([*prompt.tokens, *written], np.int64))


def distributions(pipeline: Pipeline, asked: Sequence[Prompt]) -> Iterator[np.ndarray]:
    """Logarithms of probabilities ``[length, vocabulary]`` of each text, all read at once."""
    for prompt in asked:
        engine = pipeline.engine
        engine.begin(engine.encode(prompt))
        logits = engine.step_each(read_prompt(prompt)).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=500, help="for captions, and as many for questions")
    parser.add_argument("--fresh", action="store_true", help="export the bundles anew")
    options = parser.parse_args()
    seeds = draw.SPLITS["held-out"]
    captions = [caption_task(seed) for seed in seeds[: options.scenes]]
    questions = [question_task(seed) for seed in seeds[options.scenes : 2 * options.scenes]]
    with mmedge.load(bundle_of("float32", options.fresh), backend="onnxruntime") as pipeline:
        asked = list(prompts(pipeline, captions[:COMPARED]))
        wanted = list(distributions(pipeline, asked))
    variants = []
    for precision in PRECISIONS:
        for engine in ENGINES:
            with mmedge.load(bundle_of(precision, fresh=False), backend=engine, look_ahead=True) as pipeline:
                found = _judged(Variant(pipeline), captions, questions, asked, wanted)
            variants.append({"precision": precision, "engine": engine, **found})
            print(json.dumps(variants[-1]))
    result = {"scenes": options.scenes, "compared": COMPARED, "versions": versions(), "variants": variants}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


def _judged(
    variant: Variant,
    captions: Sequence[Task],
    questions: Sequence[Task],
    asked: Sequence[Prompt],
    wanted: Sequence[np.ndarray],
) -> dict[str, float]:
    shares = {
        name: score(tasks, variant.answers(tasks))["all"].share
        for name, tasks in (("captions", captions), ("answers", questions))
    }
    own = list(distributions(variant.pipeline, asked))
    same = [np.mean(one.argmax(-1) == other.argmax(-1)) for one, other in zip(wanted, own, strict=True)]
    apart = [np.mean((np.exp(one) * (one - other)).sum(-1)) for one, other in zip(wanted, own, strict=True)]
    return {
        **shares,
        "top1": float(fmean(same)),
        "divergence": float(fmean(apart)),
        "steps_per_token": variant.steps / variant.tokens,
    }


if __name__ == "__main__":
    main()
