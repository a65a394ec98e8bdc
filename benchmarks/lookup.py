"""Where it pays to look ahead (`mmedge.runtime.lookup`): tokens per second with it by those without, and steps a token.

    python benchmarks/lookup.py BUNDLE... [--rounds 20] [--tokens 64] [--try]

Of `builtin:scenes-vlm`, a trained model: captions, which repeat nothing; the same questions asked again in the same
conversation; and what lies beside a shape, after a caption that names it. Of any other bundle, which is taken for one
of a full-size model with random weights: the pictures of its golden samples, about which such a model says a few words
again, and pictures of noise, about which it repeats nothing. Each round answers all that a case asks, each with and
without in random order. Only the time behind the first token of each answer counts.

Beside that the time of a step that reads several tokens, by that of a step that reads one: a guess costs as much, and
gains a token for each that was right. And how many answers are alike: steps of one and of several tokens round
differently where activations are quantized, and of random weights the likeliest tokens are nearly as likely as others.
Results are written into ``results/lookup.json``, with the middle half of the
rounds' own ratios; a bundle that is not measured keeps what was measured of it before.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from published import RESULTS
from together import ratio
from vlm_peers import QUESTION

import mmedge
from mmedge.builtin.scenes import draw
from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.family import Prompt, Request, Turn
from mmedge.families._decoder_only import CAPTION
from mmedge.runtime.clock import Clock
from mmedge.runtime.decode import read_answer, read_prompt
from mmedge.runtime.engine import Engine
from mmedge.runtime.lookup import MOST
from mmedge.runtime.pipeline import Pipeline
from mmedge.runtime.subjects import look

FILE = RESULTS / "lookup.json"
SCENES = 8
SIDE = 512
SHOWN = 80
"""Characters of an answer."""
LENGTHS = (1, 2, 3, 5, MOST + 1)
"""Tokens of a step."""

Cases: TypeAlias = dict[str, list[Request]]


def scenes() -> Cases:
    """What the built-in model was trained for, in one turn and in several."""
    seen = [draw.imagine(seed) for seed in draw.SPLITS["held-out"][:SCENES]]
    pictures = [np.asarray(draw.paint(scene)) for scene in seen]
    said = [Turn((picture,), CAPTION, draw.caption(scene)) for picture, scene in zip(pictures, seen, strict=True)]
    places = [
        (turn, question)
        for turn, scene in zip(said, seen, strict=True)
        for question, _ in draw.questions(scene)
        if draw.question_kind(question) == "place"
    ]
    return {
        "captions": [Request((picture,)) for picture in pictures],
        "captions asked for again": [Request((), CAPTION, (turn,)) for turn in said],
        "what is beside a shape, after the caption": [Request((), text, (turn,)) for turn, text in places[:SCENES]],
    }


def noise(bundle: Bundle) -> Cases:
    """What a model with random weights says something about."""
    golden = [look(bundle.read(f"{sample.path}/picture.png")).pixels for sample in bundle.manifest.golden[:2]]
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return {
        "pictures of the golden samples, described": [Request((each,), CAPTION) for each in golden],
        "noise, described": [Request((picture,), CAPTION)],
        "noise, a long question": [Request((picture,), QUESTION)],
    }


class Told(NamedTuple):
    """An answer, with the steps and milliseconds behind its first token."""

    tokens: list[int]
    steps: int
    ms: float


def told(pipeline: Pipeline, prompt: Prompt, limit: int, *, ahead: bool) -> Told:
    pipeline.look_ahead = ahead
    clock = Clock()
    with counted(pipeline.engine) as steps:
        tokens = [piece.token for piece in pipeline.stream(prompt, limit=limit, clock=clock) if piece.token is not None]
    return Told(tokens, len(steps) - 1, clock.stages_ms.get("decode_loop", 0.0))


@contextmanager
def counted(engine: Engine) -> Iterator[list[int]]:
    """Tokens that each step inside of the block reads."""
    lengths: list[int] = []
    step = engine._step

    def noted(reading: Any, *rest: Any, **named: Any) -> np.ndarray:
        lengths.append(reading.tokens.shape[1])
        return step(reading, *rest, **named)

    engine._step = noted  # type: ignore[method-assign]
    try:
        yield lengths
    finally:
        del engine._step  # type: ignore[method-assign]


def case(pipeline: Pipeline, asked: Sequence[Request], rounds: int, limit: int) -> dict[str, object]:
    prompts = [pipeline.prepare(request) for request in asked]
    pairs = [[pair(pipeline, prompt, limit) for prompt in prompts] for _ in range(rounds + 1)][1:]
    plain, ahead = ([each[mode] for each in pairs[-1]] for mode in (False, True))
    return {
        "asked": len(prompts),
        "tokens_of_prompts": round(float(np.mean([len(prompt.tokens) for prompt in prompts]))),
        "tokens_of_answers": sum(len(each.tokens) for each in plain),
        "answers_alike": sum(one.tokens == other.tokens for one, other in zip(plain, ahead, strict=True)),
        "steps_per_token": round(_each(ahead, "steps") / _each(plain, "steps"), 3),
        "tokens_per_second": ratio(
            [_each([of[False] for of in each], "ms") / _each([of[True] for of in each], "ms") for each in pairs]
        ),
        "an_answer": pipeline.tokenizer.decode(plain[0].tokens).strip()[:SHOWN],
    }


def pair(pipeline: Pipeline, prompt: Prompt, limit: int) -> dict[bool, Told]:
    """Without and with, in random order, both behind an answer to the same prompt."""
    told(pipeline, prompt, 1, ahead=False)
    return {ahead: told(pipeline, prompt, limit, ahead=ahead) for ahead in random.sample((False, True), 2)}


def _each(answers: Sequence[Told], what: str) -> float:
    """Of a token."""
    return sum(getattr(answer, what) for answer in answers) / sum(len(answer.tokens) for answer in answers)


def steps(pipeline: Pipeline, prompt: Prompt, rounds: int) -> dict[int, dict[str, float]]:
    """Time of a step that reads so many tokens, by that of a step that reads one, behind this prompt."""
    engine = pipeline.engine
    engine.begin(engine.encode(prompt))
    first = engine.choose(read_prompt(prompt))

    def seconds(length: int) -> float:
        reading = read_answer(prompt, np.full(length, first, np.int64), 0)
        started = time.perf_counter()
        engine.choose_each(reading)
        taken = time.perf_counter() - started
        engine.keep(len(prompt.tokens))
        return taken

    times = [{length: seconds(length) for length in random.sample(LENGTHS, len(LENGTHS))} for _ in range(rounds + 1)][
        1:
    ]
    return {length: ratio([each[length] / each[1] for each in times]) for length in LENGTHS[1:]}


def measured(bundle: Path, rounds: int, limit: int) -> dict[str, object]:
    random.seed(0)
    opened = open_bundle(bundle)
    cases = scenes() if opened.manifest.model == "builtin:scenes-vlm" else noise(opened)
    with mmedge.load(bundle) as pipeline:
        if not pipeline.engine.looks_ahead:
            raise SystemExit(f"the engine of `{bundle}` cannot look ahead")
        prompts = [pipeline.prepare(asked) for each in cases.values() for asked in each]
        longest = max(prompts, key=lambda prompt: len(prompt.tokens))
        return {
            "engines": pipeline.backends,
            "rounds": rounds,
            "cases": {name: case(pipeline, asked, rounds, limit) for name, asked in cases.items()},
            "step_by_a_step_of_one": steps(pipeline, longest, 5 * rounds),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer at most")
    parser.add_argument("--try", action="store_true", dest="trying", help="write nothing into results")
    options = parser.parse_args()
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    versions = {name: version(name) for name in ("onnxruntime", "numpy")}
    for bundle in options.bundles:
        found[bundle.name] = {"versions": versions, **measured(bundle, options.rounds, options.tokens)}
        print(json.dumps({bundle.name: found[bundle.name]}, indent=1))
    if not options.trying:
        FILE.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
