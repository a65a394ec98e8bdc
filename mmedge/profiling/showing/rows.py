"""A run as a table for spreadsheets and data frames: one row a sample, flat."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from mmedge.profiling.run import OTHER, STAGES, Run, Sample

_NS_PER_MS = 1e6

_FIXED = (
    "candidate", "unverified", "process", "round", "phase", "input", "file", "task", "question", "start_ms", "due_ms",
    "answer_ms", "ttft_ms", "tpot_ms", "tokens",
)  # fmt: skip
_LAST = ("flags", "answer", "complete_run")


def rows_of(run: Run) -> str:
    """CSV with a line of titles; what is not known is empty. Stages and power rails are columns of their own."""
    stages = [stage for stage in STAGES if any(stage in sample.stages_ns for sample in run.samples)]
    rails = sorted({rail for sample in run.samples for rail in sample.energy_mj})
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    measured = (*(f"{stage}_ms" for stage in stages), f"{OTHER}_ms", *(f"{rail}_mj" for rail in rails))
    writer.writerow((*_FIXED, *measured, *_LAST))
    writer.writerows(_row(run, sample, stages, rails) for sample in run.samples)
    return file.getvalue()


def _row(run: Run, sample: Sample, stages: Sequence[str], rails: Sequence[str]) -> list[object]:
    candidate, item, answer = run.candidates[sample.c], run.inputs.items[sample.input], run.answers[sample.answer]
    times = sample.token_ns
    between = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None
    rest = sample.answer_ns - sum(sample.stages_ns.values())
    return [
        candidate.name, candidate.unverified, sample.process, sample.round, sample.phase,
        item.id, item.file, item.task, item.text,
        _ms(sample.start_ns), _ms(sample.due_ns), _ms(sample.answer_ns), _ms(times[0] if times else None), _ms(between),
        len(times),
        *(_ms(sample.stages_ns.get(stage)) for stage in stages), _ms(rest),
        *(sample.energy_mj.get(rail) for rail in rails),
        " ".join(sample.flags), answer.text, run.complete,
    ]  # fmt: skip


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / _NS_PER_MS
