"""What int8 costs and gains on the built-in captioner: accuracy on 1,000 held-out scenes each, and speed interleaved.

    python benchmarks/scenes_int8.py

Exports `builtin:scenes` to float32 and int8, answers with ONNX Runtime, and writes ``results/scenes_int8.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import scenes
from published import RESULTS
from score_scenes import Task, caption_task, question_task

import mmedge
from mmedge.builtin.scenes import draw
from mmedge.profiling.candidates import candidates_of
from mmedge.profiling.inputs import inputs_of
from mmedge.profiling.profile import Settings, profile
from mmedge.profiling.run import Run

PRECISIONS = ("float32", "int8")
METRICS = ("answer_ms", "ttft_ms", "tpot_ms", "encode_ms", "prefill_ms", "decode_loop_ms", "peak_pss", "bundle_bytes")


def encoded(seed: int) -> bytes:
    """The scene's picture as a PNG file."""
    file = io.BytesIO()
    draw.paint(draw.imagine(seed)).save(file, "PNG")
    return file.getvalue()


def right(bundle: Path, tasks: Sequence[Task]) -> np.ndarray:
    """Which answers are exactly right, bool ``[tasks]``."""
    with mmedge.load(bundle, backend="onnxruntime") as model:
        answers = [
            model.ask(encoded(task.seed), task.prompt) if task.prompt else model.caption(encoded(task.seed))
            for task in tasks
        ]
    return np.array([answer.text == task.expected for answer, task in zip(answers, tasks, strict=True)])


def drop(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Points lost, with the 95 % interval of a paired bootstrap."""
    generator = np.random.default_rng(0)
    lost = before.astype(float) - after
    resampled = lost[generator.integers(0, len(lost), (10_000, len(lost)))].mean(axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5]) * 100
    return {"points": round(float(lost.mean()) * 100, 2), "low": round(float(low), 2), "high": round(float(high), 2)}


def speed(bundles: Sequence[Path], budget_s: float) -> Run:
    """On both engines, interleaved, on the golden pictures."""
    with tempfile.TemporaryDirectory() as folder:
        return profile(
            candidates_of(bundles, ["onnxruntime", "openvino"]),
            inputs_of(bundles, None, None, Path(folder)),
            Settings(budget_s=budget_s),
            say=lambda line: print(line, file=sys.stderr),
        )


def told(run: Run) -> dict[str, object]:
    """What of it is kept: the measures, their ratios to the first candidate's, and why to doubt them."""
    medians = [each for each in run.results.abs if each.metric in METRICS and each.stat in ("median", "value")]
    ratios = [each for each in run.results.ratios if each.metric in METRICS]
    return {
        "machine": run.machine,
        "software": run.software,
        "candidates": [candidate.name for candidate in run.candidates],
        "measures": medians,
        "ratios": ratios,
        "against itself": run.results.aa,
        "doubts": run.validity.flags,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for the rounds")
    parser.add_argument("--try", action="store_true", dest="trying", help="write nothing into results")
    options = parser.parse_args()
    bundles = dict(zip(PRECISIONS, scenes.bundles(PRECISIONS), strict=True))
    held_out = draw.SPLITS["held-out"]
    sets = {
        "captions": [caption_task(seed) for seed in held_out[: options.scenes]],
        "questions": [question_task(seed) for seed in held_out[options.scenes : 2 * options.scenes]],
    }
    accuracy = {}
    for name, tasks in sets.items():
        hits = {precision: right(bundle, tasks) for precision, bundle in bundles.items()}
        shares = {precision: round(float(hit.mean()), 4) for precision, hit in hits.items()}
        accuracy[name] = {**shares, "lost": drop(hits["float32"], hits["int8"])}
        print(name, accuracy[name])
    found = msgspec.to_builtins(told(speed(list(bundles.values()), options.budget)))
    if not options.trying:
        result = {"scenes": options.scenes, "accuracy": accuracy, **found}
        (RESULTS / "scenes_int8.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
