"""What it gains to let several answers go on at once, as `mmedge caption` does with a folder.

    python benchmarks/together.py BUNDLE... [--rounds 10] [--tokens 64] [--try]

Eight pictures are captioned one by one, and two, four and eight at once, in turns. Two ratios of each to one by one are
written into ``results/together.json``, with the middle half of the rounds' own ratios: of whole answers per second, and
of tokens per second behind the first token of each answer, when all that is done is reading weights and cache.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from published import RESULTS

from mmedge.core.bundle import open_bundle
from mmedge.runtime.pipeline import Answer, Pipeline, open_pipeline

PICTURES = 8
AT_ONCE = (1, 2, 4, 8)
SIDE = 512
SETTLES_S = 0.05
"""Threads of an engine go on looking for work for a while after a run."""


class Took:
    """Seconds of all pictures answered so many at once, milliseconds by stage, and tokens behind the first of each."""

    def __init__(self, pipeline: Pipeline, pictures: Sequence[np.ndarray], at_once: int, limit: int) -> None:
        time.sleep(SETTLES_S)
        answers: list[Answer] = []
        started = time.perf_counter()
        for first in range(0, len(pictures), at_once):
            answers += pipeline.answer_together("caption", pictures[first : first + at_once], limit=limit)
        self.seconds = time.perf_counter() - started
        self.tokens = sum(len(answer.tokens) - 1 for answer in answers)
        stages = [answer.stages_ms for answer in answers]
        self.prefill, self.loop = (sum(each.get(name, 0.0) for each in stages) for name in ("prefill", "decode_loop"))


def one_round(pipeline: Pipeline, pictures: Sequence[np.ndarray], tokens: int) -> dict[int, tuple[float, float]]:
    """Answers per second, and tokens per millisecond behind the first, by how many went on at once."""
    took = {n: Took(pipeline, pictures, n, tokens) for n in random.sample(AT_ONCE, len(AT_ONCE))}
    prompts = took[1].prefill  # several answers read theirs one by one too, inside of their loop
    loops = {n: each.loop - (prompts if n > 1 else 0.0) for n, each in took.items()}
    return {n: (len(pictures) / each.seconds, each.tokens / loops[n]) for n, each in took.items()}


def gains(bundle: Path, rounds: int, tokens: int) -> dict[str, object]:
    random.seed(0)
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(PICTURES)]
    with open_pipeline(open_bundle(bundle)) as pipeline:
        one_round(pipeline, pictures[:2], 4)
        taken = [one_round(pipeline, pictures, tokens) for _ in range(rounds)]
        engines = sorted({*pipeline.backends.values()})
    return {
        "engines": engines,
        "rounds": rounds,
        "tokens": tokens,
        "answers": {n: ratio([one[n][0] / one[1][0] for one in taken]) for n in AT_ONCE[1:]},
        "tokens_behind_the_first": {n: ratio([one[n][1] / one[1][1] for one in taken]) for n in AT_ONCE[1:]},
    }


def ratio(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = (round(float(value), 3) for value in np.percentile(values, (25, 50, 75)))
    return {"ratio": middle, "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--try", action="store_true", dest="trying", help="write nothing into results")
    options = parser.parse_args()
    found = {bundle.name: gains(bundle, options.rounds, options.tokens) for bundle in options.bundles}
    versions = {name: version(name) for name in ("onnxruntime", "openvino", "numpy")}
    text = json.dumps(found | {"versions": versions}, indent=1) + "\n"
    print(text)
    if not options.trying:
        (RESULTS / "together.json").write_text(text)


if __name__ == "__main__":
    main()
