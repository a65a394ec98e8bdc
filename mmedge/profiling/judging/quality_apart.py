"""What the answers of two candidates are worth beside each other, in runs that were measured apart."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmedge.profiling.judging.comparison import Quality
from mmedge.profiling.judging.matching import Subject
from mmedge.profiling.numbers.quality import most_changed, task_of
from mmedge.profiling.numbers.resampling import mean_interval
from mmedge.profiling.run import Score


def judged_apart(a: Subject, b: Subject) -> Iterator[Quality]:
    """Answers do not depend on when they were given, so that these are paired by input all the same."""
    for one in a.run.quality:
        for two in b.run.quality:
            if (one.c, two.c) == (a.c, b.c) and one.metric and one.metric == two.metric:
                yield from _lost(one, two, a, b)
    yield from _agreement(a, b)


def _lost(one: Score, two: Score, a: Subject, b: Subject) -> Iterator[Quality]:
    scores = [
        {number: value for at, number in each.numbers.items() if (value := score.per_input[at]) is not None}
        for score, each in ((one, a), (two, b))
    ]
    both = np.array([(scores[0][number], scores[1][number]) for number in scores[0].keys() & scores[1].keys()])
    if len(both):
        yield _quality(one.metric, task_of(a.run, one), both)


def _agreement(a: Subject, b: Subject) -> Iterator[Quality]:
    """How often B says what A says."""
    texts, others = a.texts(), b.texts()
    tasks = {number: a.run.inputs.items[at].task for at, number in a.numbers.items()}
    for task in dict.fromkeys(tasks.values()):
        same = [float(texts[at] == others[at]) for at in texts.keys() & others.keys() if tasks[at] == task]
        if same:
            yield _quality("agreement", task, np.array([(1.0, each) for each in same]))


def _quality(metric: str, task: str, both: np.ndarray) -> Quality:
    """Of ``[input, A or B]``."""
    lost = 100 * (both[:, 0] - both[:, 1])
    low, high = mean_interval(lost)
    first, second = (float(value) for value in both.mean(axis=0))
    # As in `quality.scores_of`: no loss among a few inputs is no proof that there is none among many.
    high = max(high, 100 * first * most_changed(len(both)))
    return Quality(metric, task, first, second, float(lost.mean()), low, high)
