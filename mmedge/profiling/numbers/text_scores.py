"""How good a text is: equal to one of the right ones, as many people as said it, or as alike as CIDEr-D has it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

Words: TypeAlias = tuple[str, ...]

LONGEST = 4
"""Words of the longest phrases that CIDEr compares."""
SIGMA = 6.0
"""Words by which lengths differ before CIDEr-D minds."""
ENOUGH = 3
"""People who must have given an answer for it to be wholly right."""

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_ARTICLES = {"a", "an", "the"}


def plain(text: str) -> str:
    """Without differences in case and white space."""
    return " ".join(text.casefold().split())


def right(answer: str, expected: Sequence[str]) -> float:
    """1 where the answer is one of the expected but for case and white space."""
    return float(plain(answer) in {plain(each) for each in expected})


def vqa(answer: str, expected: Sequence[str]) -> float:
    """Accuracy of VQA (Antol et al. 2015): a third for everyone who said the same, at most 1.

    Case, punctuation and articles do not count. With less than three right answers any of them is wholly right.
    """
    said, known = _bare(answer), [_bare(each) for each in expected]
    return min(1.0, known.count(said) / min(ENOUGH, len(known)) if len(known) >= ENOUGH else float(said in known))


def cider(answers: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of every answer, from 0 to 10 (R. Vedantam et al., CIDEr: Consensus-based Image Description Evaluation,
    2015, equation 4): likeness of phrases of one to four words, rare ones counting more, averaged over the references.

    How rare a phrase is, is counted among these ``references``: with few pictures the numbers are small and rough.
    Words are taken as written, without the stemming of the paper.
    """
    phrases = [[_phrases(text) for text in texts] for texts in references]
    counts: Counter[Words] = Counter()
    for each in phrases:
        counts.update({phrase for one in each for order in one for phrase in order})
    weights = {phrase: math.log(len(references) / count) for phrase, count in counts.items()}
    usual = math.log(len(references))
    return [
        float(np.mean([_alike(_phrases(answer), one, weights, usual) for one in each])) if each else 0.0
        for answer, each in zip(answers, phrases, strict=True)
    ]


def edit_distance(one: Sequence[object], two: Sequence[object]) -> float:
    """Insertions, deletions and replacements that make one the other, as a share of the longer one."""
    if one == two:
        return 0.0
    row = list(range(len(two) + 1))
    for place, mine in enumerate(one, 1):
        before, row[0] = row[0], place
        for at, theirs in enumerate(two, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (mine != theirs))
    return row[-1] / max(len(one), len(two), 1)


_ORDERS = range(LONGEST)


def _phrases(text: str) -> list[Counter[Words]]:
    """By length: how often each phrase occurs."""
    words = _WORD.findall(text.casefold())
    return [Counter(tuple(words[at : at + n + 1]) for at in range(len(words) - n)) for n in _ORDERS]


def _alike(
    answer: list[Counter[Words]], reference: list[Counter[Words]], weights: dict[Words, float], usual: float
) -> float:
    lengths = sum(answer[0].values()), sum(reference[0].values())
    penalty = math.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * SIGMA**2))
    return 10 * penalty * float(np.mean([_cosine(answer[n], reference[n], weights, usual) for n in _ORDERS]))


def _cosine(answer: Counter[Words], reference: Counter[Words], weights: dict[Words, float], usual: float) -> float:
    """Of weighted counts; the answer gains nothing by repeating a phrase more often than the reference."""
    own = {phrase: count * weights.get(phrase, usual) for phrase, count in answer.items()}
    other = {phrase: count * weights.get(phrase, usual) for phrase, count in reference.items()}
    shared = sum(min(own[phrase], value) * value for phrase, value in other.items() if phrase in own)
    lengths = math.hypot(*own.values()) * math.hypot(*other.values())
    return shared / lengths if lengths else 0.0


def _bare(text: str) -> str:
    return " ".join(word for word in _WORD.findall(text.casefold()) if word not in _ARTICLES)
