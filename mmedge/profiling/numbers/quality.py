"""What answers are worth: the metric of the task, and how far they are from those of the reference.

The metric follows from the expected answers alone, so that no candidate's answers choose what they are judged by; it is
the same for all candidates of a run. A text agrees or not with the reference: the first candidate in float32, which
nothing was taken from, else the baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from msgspec.structs import replace

from mmedge.profiling.numbers.distributions import binomial_two_sided
from mmedge.profiling.numbers.resampling import mean_interval
from mmedge.profiling.numbers.text_scores import cider, edit_distance, plain, right, vqa
from mmedge.profiling.run import Answer, QualityVerdict, Run, Score

MARGIN = 1.0
"""Points of 100 that a candidate may lose."""
MOST_UNLIKELY = 0.025
"""Chance that nothing changed among these inputs, although more changes elsewhere than the interval has."""

FEWEST = 5
"""Inputs below which nothing is said of all others."""
LONGEST_EXACT = 3
"""Words of captions that must be given word by word: people say longer ones in many ways."""
FULL = "float32"

PerInput: TypeAlias = tuple[float | None, ...]
Expected: TypeAlias = Sequence[Sequence[str]]
"""By input: its right answers."""
Scoring: TypeAlias = Callable[[Sequence[str], Expected], list[float]]
"""From answers to a score for each, 1 being right (`cider`: 10)."""


def caption(expected: Expected) -> str:
    """Word by word where all references are a few words, else CIDEr-D.

    One picture alone is judged word by word too: CIDEr weighs words by how few of the pictures have them.
    """
    words = (len(text.split()) for texts in expected for text in texts)
    return "exact" if len(expected) == 1 or max(words) <= LONGEST_EXACT else "cider"


def ask(expected: Expected) -> str:
    """Accuracy as VQA has it with several answers of people, exact with one."""
    return "exact" if all(len(texts) == 1 for texts in expected) else "vqa"


def embed(expected: Expected) -> str:
    """Whether the own text is the nearest: recall@1."""
    return "exact"


METRICS: Mapping[str, Callable[[Expected], str]] = MappingProxyType({"caption": caption, "ask": ask, "embed": embed})
"""By task: a task that is not here is judged by agreement with the reference."""

SCORINGS: Mapping[str, Scoring] = MappingProxyType(
    {
        "exact": lambda answers, expected: [right(*each) for each in zip(answers, expected, strict=True)],
        "vqa": lambda answers, expected: [vqa(*each) for each in zip(answers, expected, strict=True)],
        "cider": cider,
    }
)
"""By metric."""


def scores_of(run: Run, margin: float = MARGIN) -> tuple[Score, ...]:
    """Of every candidate's first answer to each input: a score for each task that was asked.

    ``lost`` has a 95 % interval of a paired bootstrap over inputs. Its upper end is never below what may be lost
    elsewhere when no answer at all changed here: a handful of equal answers is no proof.
    """
    answers = _answers(run)
    reference = _reference(run, answers)
    return tuple(
        _score(run, answers, c, task, reference, margin)
        for task in run.tasks
        for c in range(len(run.candidates))
        if answers[c]
    )


def _reference(run: Run, answers: list[dict[int, Answer]]) -> int:
    full = (c for c, each in enumerate(run.candidates) if answers[c] and {*each.precisions.values()} == {FULL})
    return next(full, 0)


def most_changed(inputs: int) -> float:
    """Share of answers that may change elsewhere where none of so many did here: no proof that it is none."""
    return 1.0 - float(MOST_UNLIKELY ** (1 / inputs))


def task_of(run: Run, score: Score) -> str:
    """Of the inputs that it judges."""
    judged = (at for at, agrees in enumerate(score.agree) if agrees is not None)
    return next((run.inputs.items[at].task for at in judged), "")


def _answers(run: Run) -> list[dict[int, Answer]]:
    """By candidate and input."""
    found: list[dict[int, Answer]] = [{} for _ in run.candidates]
    for answer in run.answers:
        found[answer.c].setdefault(answer.input, answer)
    return found


def _score(run: Run, answers: list[dict[int, Answer]], c: int, task: str, reference: int, margin: float) -> Score:
    items = run.inputs.items
    asked = [at for at in sorted(answers[c].keys() & answers[reference].keys()) if items[at].task == task]
    pairs = [(answers[c][at], answers[reference][at]) for at in asked]
    agree = _spread(len(items), asked, [float(one.text == two.text) for one, two in pairs])
    metric, own, first = _judged(run, answers, c, task)
    found = Score(
        c=c,
        metric=metric,
        per_input=own,
        mean=_mean(own),
        agree=agree,
        agreement=_mean(agree),
        edit=_mean([edit_distance(*_words(*pair)) for pair in pairs]),
        reference=reference,
    )
    if c == (0 if metric else reference):
        return found
    return _compared(found, own, first, margin) if metric else _compared(found, agree, [1.0] * len(agree), margin)


def _judged(run: Run, answers: list[dict[int, Answer]], c: int, task: str) -> tuple[str, PerInput, PerInput]:
    """The task's metric, and by input the scores of the candidate and of the baseline."""
    items = run.inputs.items
    judged = [at for at, item in enumerate(items) if item.task == task and item.expected]
    known = [at for at in judged if at in answers[c] and at in answers[0]]
    nothing: PerInput = (None,) * len(items)
    if task not in METRICS or not known:
        return "", nothing, nothing
    metric = METRICS[task]([items[at].expected for at in judged])
    expected = [items[at].expected for at in known]
    own, first = (SCORINGS[metric]([answers[who][at].text for at in known], expected) for who in (c, 0))
    return metric, _spread(len(items), known, own), _spread(len(items), known, first)


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
        verdict=_verdict(found, low, high, margin) if pairs[:, 0].any() and len(pairs) >= FEWEST else "inconclusive",
    )


def _exchanged(pairs: np.ndarray) -> tuple[int, int]:
    """How many became wrong, and how many right."""
    return int((pairs[:, 0] > pairs[:, 1]).sum()), int((pairs[:, 0] < pairs[:, 1]).sum())


def _verdict(found: Score, low: float, high: float, margin: float) -> QualityVerdict:
    """Accepted: certainly within the margin. Worse: certainly not; without right answers it only differs."""
    if high < margin:
        return "accepted"
    return ("worse" if found.metric else "differs") if low > margin else "inconclusive"


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
