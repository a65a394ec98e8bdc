"""Samples as arrays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from mmedge.profiling.run import OTHER, STAGES, Run, Sample

NS_PER_MS = 1e6
NS_PER_S = 1e9


def rounds_of(run: Run, c: int, task: str = "") -> list[Sample]:
    """The answers of a candidate that count; of one task where it is named."""
    items = run.inputs.items
    return [sample for sample in run.rounds if sample.c == c and task in ("", items[sample.input].task)]


def answer_ms(samples: list[Sample]) -> np.ndarray:
    """How long each took."""
    return np.array([sample.answer_ns for sample in samples], dtype=float) / NS_PER_MS


def stages_ms(samples: list[Sample]) -> Mapping[str, float]:
    """Mean time by stage, in order; ``other`` is the rest, so that all add up to the mean answer."""
    sums: dict[str, float] = defaultdict(float)
    for sample in samples:
        for stage, spent in sample.stages_ns.items():
            sums[stage] += spent
    sums[OTHER] = sum(sample.answer_ns for sample in samples) - sum(sums.values())
    order = [*(stage for stage in STAGES if stage in sums), *(stage for stage in sums if stage not in STAGES)]
    return {stage: sums[stage] / len(samples) / NS_PER_MS for stage in order} if samples else {}
