"""What int8 costs and gains on the built-in captioner: accuracy on 1,000 held-out scenes each, and speed interleaved.

    python benchmarks/scenes_int8.py

Exports `builtin:scenes` to float32 and int8, answers with ONNX Runtime, and writes ``results/scenes_int8.json``.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from score_scenes import Task, caption_task, question_task

import mmedge
from mmedge.builtin.scenes import draw
from mmedge.profiling.candidates import candidates_of
from mmedge.profiling.profile import profile
from mmedge.profiling.queries import queries_of

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "benchmarks" / ".work"
RESULTS = ROOT / "benchmarks" / "results" / "scenes_int8.json"
PRECISIONS = ("float32", "int8")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    bundles = {precision: WORK / f"scenes-{precision}.bundle" for precision in PRECISIONS}
    for precision, bundle in bundles.items():
        mmedge.export("builtin:scenes", output=bundle, target="cpu", precision=precision, force=True)
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
    candidates = candidates_of(list(bundles.values()), ["onnxruntime", "openvino"])
    found = profile(candidates, queries_of(list(bundles.values()), None, None), rounds=options.rounds)
    speed = {
        candidate.name: msgspec.to_builtins(result)
        for candidate, result in zip(found.candidates, found.results, strict=True)
    }
    doubts = msgspec.to_builtins(found.doubts)
    report = {"scenes": options.scenes, "accuracy": accuracy, "speed": speed, "doubts": doubts}
    machine = {"machine": msgspec.to_builtins(found.machine), "software": found.software}
    RESULTS.write_text(json.dumps({**machine, **report}, indent=2) + "\n")
    for name, result in speed.items():
        encode = next(metric for metric in result["metrics"] if metric["name"] == "encode")
        print(f"{name:<30} encode {encode['ms']} ratio {encode['ratio']}")


if __name__ == "__main__":
    main()
