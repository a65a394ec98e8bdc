"""What answers are worth: the metric of the task, and how far they are from the baseline's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
from msgspec.structs import replace

from mmedge.profiling.numbers.distributions import binomial_two_sided
from mmedge.profiling.numbers.resampling import mean_interval
from mmedge.profiling.numbers.text_scores import cider, edit_distance, plain, right, vqa
from mmedge.profiling.run import Answer, Input, QualityVerdict, Run, Score

MARGIN = 1.0
"""Points of 100 that a candidate may lose."""
MOST_UNLIKELY = 0.025
"""Chance that nothing changed among these inputs, although more changes elsewhere than the interval has."""

PerInput: TypeAlias = tuple[float | None, ...]


class Asked(NamedTuple):
    """An input with right answers, and what two candidates said to it."""

    expected: tuple[str, ...]
    answer: str
    baseline: str


Metric: TypeAlias = Callable[[Sequence[Asked]], tuple[str, list[float]]]
"""From all inputs of a task to the metric's name and a score for each, 1 being right (`cider`: 10)."""


def caption(asked: Sequence[Asked]) -> tuple[str, list[float]]:
    """Word by word where each picture has one reference and the baseline gives most of them so, else CIDEr-D.

    One picture alone is judged word by word too: CIDEr weighs words by how few of the pictures have them.
    """
    exactly = [right(each.baseline, each.expected) for each in asked]
    if len(asked) == 1 or (all(len(each.expected) == 1 for each in asked) and 2 * sum(exactly) >= len(asked)):
        return "exact", [right(each.answer, each.expected) for each in asked]
    return "cider", cider([each.answer for each in asked], [each.expected for each in asked])


def ask(asked: Sequence[Asked]) -> tuple[str, list[float]]:
    """Accuracy as VQA has it with several answers of people, exact with one."""
    if all(len(each.expected) == 1 for each in asked):
        return "exact", [right(each.answer, each.expected) for each in asked]
    return "vqa", [vqa(each.answer, each.expected) for each in asked]


METRICS: MappingProxyType[str, Metric] = MappingProxyType({"caption": caption, "ask": ask})
"""By task: a task that is not here is judged by agreement with the baseline."""


def scores_of(run: Run, margin: float = MARGIN) -> tuple[Score, ...]:
    """Of every candidate's first answer to each input: a score for each task that was asked.

    ``lost`` has a 95 % interval of a paired bootstrap over inputs. Its upper end is never below what may be lost
    elsewhere when no answer at all changed here: a handful of equal answers is no proof.
    """
    answers = _answers(run)
    return tuple(
        _score(run, answers, c, task, margin) for task in run.tasks for c in range(len(run.candidates)) if answers[c]
    )


def most_changed(inputs: int) -> float:
    """Share of answers that may change elsewhere where none of so many did here: no proof that it is none."""
    return 1.0 - float(MOST_UNLIKELY ** (1 / inputs))


def _answers(run: Run) -> list[dict[int, Answer]]:
    """By candidate and input."""
    found: list[dict[int, Answer]] = [{} for _ in run.candidates]
    for answer in run.answers:
        found[answer.c].setdefault(answer.input, answer)
    return found


def _score(run: Run, answers: list[dict[int, Answer]], c: int, task: str, margin: float) -> Score:
    items = run.inputs.items
    asked = [at for at in sorted(answers[c].keys() & answers[0].keys()) if items[at].task == task]
    agree = _spread(len(items), asked, [float(answers[c][at].text == answers[0][at].text) for at in asked])
    metric, own, first = _judged(items, answers, c, task)
    found = Score(
        c=c,
        metric=metric,
        per_input=own,
        mean=_mean(own),
        agree=agree,
        agreement=_mean(agree),
        edit=_mean([edit_distance(*_words(answers[c][at], answers[0][at])) for at in asked]),
    )
    if c == 0:
        return found
    return _compared(found, own, first, margin) if metric else _compared(found, agree, [1.0] * len(agree), margin)


def _judged(
    items: Sequence[Input], answers: list[dict[int, Answer]], c: int, task: str
) -> tuple[str, PerInput, PerInput]:
    """The task's metric, and by input the scores of the candidate and of the baseline."""
    known = [at for at in answers[c].keys() & answers[0].keys() if items[at].task == task and items[at].expected]
    known.sort()
    nothing: PerInput = (None,) * len(items)
    if task not in METRICS or not known:
        return "", nothing, nothing
    own, first = (
        METRICS[task]([Asked(items[at].expected, answers[who][at].text, answers[0][at].text) for at in known])
        for who in (c, 0)
    )
    return own[0], _spread(len(items), known, own[1]), _spread(len(items), known, first[1])


def _compared(found: Score, own: Sequence[float | None], first: Sequence[float | None], margin: float) -> Score:
    pairs = np.array([(one, two) for one, two in zip(first, own, strict=True) if one is not None and two is not None])
    if not len(pairs):
        return found
    lost = 100 * (pairs[:, 0] - pairs[:, 1])
    low, high = mean_interval(lost)
    high = max(high, 100 * float(pairs[:, 0].mean()) * most_changed(len(pairs)))
    right_or_wrong = found.metric and pairs.any() and set(pairs.ravel()) <= {0.0, 1.0}
    table = _exchanged(pairs) if right_or_wrong else None
    return replace(
        found,
        lost=float(lost.mean()),
        low=low,
        high=high,
        mcnemar=binomial_two_sided(*table) if table else None,
        verdict=_verdict(low, high, margin) if pairs[:, 0].any() else "inconclusive",
    )


def _exchanged(pairs: np.ndarray) -> tuple[int, int]:
    """How many became wrong, and how many right."""
    return int((pairs[:, 0] > pairs[:, 1]).sum()), int((pairs[:, 0] < pairs[:, 1]).sum())


def _verdict(low: float, high: float, margin: float) -> QualityVerdict:
    """Accepted: certainly within the margin. Worse: certainly not."""
    if high < margin:
        return "accepted"
    return "worse" if low > margin else "inconclusive"


def _words(one: Answer, two: Answer) -> Iterator[Sequence[object]]:
    """Tokens where both are known, else words."""
    by_tokens = bool(one.tokens) and bool(two.tokens)
    for each in (one, two):
        yield each.tokens if by_tokens else plain(each.text).split()


def _spread(count: int, places: Sequence[int], values: Sequence[float]) -> PerInput:
    found: list[float | None] = [None] * count
    for at, value in zip(places, values, strict=True):
        found[at] = value
    return tuple(found)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
