"""Held-out scenes of the built-in captioner as pictures with right answers, and its bundles."""

from __future__ import annotations

import json
from pathlib import Path

from published import WORK
from score_scenes import Task, caption_task

import mmedge
from mmedge.builtin.scenes import draw


def bundles(precisions: tuple[str, ...], fresh: bool = True) -> list[Path]:
    """`builtin:scenes` for any CPU, in each precision."""
    paths = [WORK / f"scenes-{precision}.bundle" for precision in precisions]
    for precision, path in zip(precisions, paths, strict=True):
        if fresh or not path.exists():
            mmedge.export("builtin:scenes", output=path, target="cpu", precision=precision, force=True)
    return paths


def captions(count: int) -> Path:
    """A list of so many pictures that neither training nor calibration has seen, each with its right caption."""
    folder = WORK / "held_out_scenes"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(caption_task(seed), folder) for seed in draw.SPLITS["held-out"][:count]]
    (folder / f"captions-{count}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / f"captions-{count}.jsonl"


def _row(task: Task, folder: Path) -> dict[str, str]:
    file = f"{task.seed}.png"
    draw.paint(draw.imagine(task.seed)).save(folder / file)
    return {"image": file, "caption": task.expected}
