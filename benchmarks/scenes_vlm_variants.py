"""What each precision of `builtin:scenes-vlm` loses, on each engine: exact captions, right answers, and its choices.

    python benchmarks/scenes_vlm_variants.py [--scenes 300] [--only openvino] [--fresh] [--try]

Held-out scenes, as `score_scenes_vlm.py` takes them. Beside the task: of the tokens that the float32 model answers
with, read by each variant, how often its likeliest token is the same (top 1), and how far its distribution is from that
of float32 (Kullback-Leibler divergence, natural logarithm); and how many steps prompt lookup needs a token.

A bundle is run as it ships, and its decoder in OpenVINO with what mmedge does not choose: keys and values kept in fewer
bits, and activations quantized at every step or not. Of these there is also the time a token takes by what it takes as
it ships, captions in turns; with the middle half of the rounds' own ratios. A row of ``results`` that was measured with
more scenes stays.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from score_scenes import ROOT, Answering, Task, caption_task, question_task, score
from together import SETTLES_S, ratio

import mmedge
from mmedge.backends import openvino
from mmedge.builtin.scenes import draw
from mmedge.core.family import Prompt, Request
from mmedge.core.manifest import Graph
from mmedge.runtime.decode import decode, read_answer, read_prompt
from mmedge.runtime.pipeline import Pipeline

WORK = ROOT / "benchmarks" / ".work"
RESULTS = ROOT / "benchmarks" / "results" / "scenes_vlm_variants.json"
PRECISIONS = ("float32", "int8-weights", "int4-weights")
ENGINES = ("onnxruntime", "openvino")
COMPARED = 100
"""Captions whose distributions are compared."""
TIMED = 4
"""Pictures that are captioned in each round."""
CACHE, GROUP = "KV_CACHE_PRECISION", "DYNAMIC_QUANTIZATION_GROUP_SIZE"
NOTE = (
    "decode_time is the time of a step by that of the same bundle as it ships, in turns. The model is small (4 layers "
    "of 192, about 100 tokens in the cache): nearly all of a step is overhead, and little of what it would gain by "
    "reading fewer bytes can be seen."
)


class Kind(NamedTuple):
    """A bundle on an engine, as it ships or with other settings of the decoder."""

    precision: str
    engine: str
    changed: str = ""
    settings: Mapping[str, str | int | None] = {}
    """None for what the engine chooses itself."""

    @property
    def name(self) -> str:
        return f"{self.precision} {self.engine}{', ' if self.changed else ''}{self.changed}"


SHIPPED = tuple(Kind(precision, engine) for precision in PRECISIONS for engine in ENGINES)
CHANGED = (
    *(Kind(each, "openvino", f"cache {bits}", {CACHE: bits}) for each in PRECISIONS for bits in ("f16", "u8")),
    Kind("int8-weights", "openvino", "activations quantized in groups the engine chooses", {GROUP: None}),
    Kind("int4-weights", "openvino", "activations not quantized", {GROUP: 0}),
)


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


class Read(NamedTuple):
    """What a model answered."""

    prompt: Prompt
    tokens: list[int]


def captioned(pipeline: Pipeline, tasks: Sequence[Task]) -> Iterator[Read]:
    engine = pipeline.engine
    for task in tasks:
        prompt = pipeline.prepare(Request((picture(task),)))
        engine.begin(engine.encode(prompt))
        yield Read(prompt, list(decode(engine.choose, prompt, limit=64)))


def distributions(pipeline: Pipeline, asked: Sequence[Read]) -> Iterator[np.ndarray]:
    """Logarithms of probabilities ``[tokens + 1, vocabulary]``, a step a token: what is read at once is not read from
    the cache."""
    engine = pipeline.engine
    for prompt, tokens in asked:
        engine.begin(engine.encode(prompt))
        answer = [read_answer(prompt, np.array([token]), place) for place, token in enumerate(tokens)]
        logits = np.stack([engine.step(reading) for reading in (read_prompt(prompt), *answer)]).astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        yield logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@contextmanager
def set_to(settings: Mapping[str, str | int | None]) -> Iterator[None]:
    """Decoders that OpenVINO opens inside of the block have these settings instead of their own."""
    usual = openvino._settings

    def changed(graph: Graph, threads: int) -> dict[str, str | int]:
        own = {**usual(graph, threads), **(settings if graph.cache else {})}
        return {name: value for name, value in own.items() if value is not None}

    openvino._settings = changed
    try:
        yield
    finally:
        openvino._settings = usual


def opened(kind: Kind) -> Pipeline:
    """With the settings of this kind, as far as the engine says."""
    with set_to(kind.settings):
        pipeline = mmedge.load(bundle_of(kind.precision, fresh=False), backend=kind.engine, look_ahead=True)
    told = in_force(pipeline)
    if wrong := {name: told[name] for name, value in kind.settings.items() if str(value) not in (told[name], "None")}:
        raise SystemExit(f"`{kind.name}` has other settings: {wrong}")
    return pipeline


def in_force(pipeline: Pipeline) -> dict[str, str]:
    """What OpenVINO says that it does in the decoder."""
    session = pipeline.engine.sessions["decoder"]
    if not isinstance(session, openvino.OpenVinoSession):
        return {}
    compiled = session._request.get_compiled_model()
    return {name: _word(compiled.get_property(name)) for name in (CACHE, GROUP)}


def _word(value: Any) -> str:
    """Types of OpenVINO know their names."""
    return str(value.to_string() if hasattr(value, "to_string") else value)


def times(kinds: Sequence[Kind], tasks: Sequence[Task], rounds: int) -> dict[str, dict[str, float]]:
    """Of a token, by what it takes in the first kind, by name."""
    taken: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        pipelines = {kind.name: stack.enter_context(opened(kind)) for kind in kinds}
        for _ in range(rounds + 1):
            for name in random.sample(list(pipelines), len(pipelines)):
                taken[name].append(_ms_per_token(pipelines[name], tasks))
    first, *others = [kind.name for kind in kinds]
    return {
        name: ratio([own / usual for own, usual in zip(taken[name][1:], taken[first][1:], strict=True)])
        for name in others
    }


def _ms_per_token(pipeline: Pipeline, tasks: Sequence[Task]) -> float:
    time.sleep(SETTLES_S)
    said = [pipeline.answer("caption", picture(task)) for task in tasks]
    return sum(each.stages_ms["decode_loop"] for each in said) / sum(len(each.tokens) for each in said)


def kept(known: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each row what was measured with more scenes, the newer of as many."""
    rows = {row["name"]: row for row in known}
    rows |= {row["name"]: row for row in found if row["scenes"] >= rows.get(row["name"], row)["scenes"]}
    return [rows[kind.name] for kind in (*SHIPPED, *CHANGED) if kind.name in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=300, help="for captions, and as many for questions")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--rounds", type=int, default=40, help="in which times are compared")
    parser.add_argument("--fresh", action="store_true", help="export the bundles anew")
    parser.add_argument("--try", action="store_true", dest="trying", help="write nothing into results")
    options = parser.parse_args()
    random.seed(0)
    if options.fresh:
        for precision in PRECISIONS:
            bundle_of(precision, fresh=True)
    seeds = draw.SPLITS["held-out"]
    captions = [caption_task(seed) for seed in seeds[: options.scenes]]
    questions = [question_task(seed) for seed in seeds[options.scenes : 2 * options.scenes]]
    with opened(SHIPPED[0]) as pipeline:
        asked = list(captioned(pipeline, captions[:COMPARED]))
        wanted = list(distributions(pipeline, asked))
    compared = {}
    for usual, *changed in alternatives(options.only):
        compared |= times([usual, *changed], captions[:TIMED], options.rounds)
    found: list[dict[str, Any]] = []
    for kind in chosen(options.only):
        with opened(kind) as pipeline:
            row = {
                "name": kind.name,
                "precision": kind.precision,
                "engine": kind.engine,
                "settings": in_force(pipeline),
            }
            row |= {"scenes": options.scenes, "compared": len(asked), "versions": versions()}
            row |= _judged(Variant(pipeline), captions, questions, asked, wanted)
        found.append(row | ({"decode_time": compared[kind.name]} if kind.name in compared else {}))
        print(json.dumps(found[-1]), flush=True)
    if not options.trying:
        known = json.loads(RESULTS.read_text())["variants"] if RESULTS.exists() else []
        RESULTS.write_text(json.dumps({"note": NOTE, "variants": kept(known, found)}, indent=1) + "\n")


def chosen(only: str) -> list[Kind]:
    return [kind for kind in (*SHIPPED, *CHANGED) if only in kind.name]


def alternatives(only: str) -> Iterator[list[Kind]]:
    """Of each precision what ships, and then what is compared with it."""
    for usual in SHIPPED:
        others = [kind for kind in CHANGED if (kind.precision, kind.engine) == usual[:2] and only in kind.name]
        if others:
            yield [usual, *others]


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("onnxruntime", "openvino", "torch", "transformers")}


def _judged(
    variant: Variant,
    captions: Sequence[Task],
    questions: Sequence[Task],
    asked: Sequence[Read],
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
