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
from mmedge.runtime.pipeline import Pipeline, open_pipeline

PICTURES = 8
AT_ONCE = (1, 2, 4, 8)
SIDE = 512
DECODING = ("prefill", "decode_loop")
"""Stages behind the picture: the second one of several answers holds the first one too."""
SETTLES_S = 0.05
"""Threads of an engine go on looking for work for a while after a run."""


class Took:
    """Seconds, milliseconds behind the picture, and tokens, of all pictures answered so many at once."""

    def __init__(self, pipeline: Pipeline, pictures: Sequence[np.ndarray], at_once: int, limit: int) -> None:
        time.sleep(SETTLES_S)
        self.tokens, self.decoding = 0, 0.0
        started = time.perf_counter()
        for first in range(0, len(pictures), at_once):
            answers = pipeline.answer_together("caption", pictures[first : first + at_once], limit=limit)
            self.tokens += sum(len(answer.tokens) for answer in answers)
            self.decoding += sum(answer.stages_ms.get(stage, 0.0) for answer in answers for stage in DECODING)
        self.seconds = time.perf_counter() - started


def one_round(pipeline: Pipeline, pictures: Sequence[np.ndarray], tokens: int) -> dict[int, tuple[float, float]]:
    """Answers per second, and tokens per millisecond behind the first, by how many went on at once."""
    found = {}
    for at_once in random.sample(AT_ONCE, len(AT_ONCE)):
        whole, begun = (Took(pipeline, pictures, at_once, limit) for limit in (tokens, 1))
        rate = (whole.tokens - begun.tokens) / (whole.decoding - begun.decoding)
        found[at_once] = (len(pictures) / whole.seconds, rate)
    return found


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
