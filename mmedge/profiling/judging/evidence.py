"""What a run says of a metric of one candidate: a value and how sure it is, or why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np
from msgspec import Struct

from mmedge.errors import UsageError
from mmedge.profiling.judging.comparison import Comparison, Pair
from mmedge.profiling.judging.rules import RATIO, Rule
from mmedge.profiling.numbers.estimates import RATE
from mmedge.profiling.numbers.quality import most_changed
from mmedge.profiling.numbers.quantities import kind_of
from mmedge.profiling.numbers.ratios import bias_between
from mmedge.profiling.numbers.resampling import mean_interval
from mmedge.profiling.run import OTHER, STAGES, Absolute, Run, Score

KNOWN = {
    *(f"{name}_ms" for name in ("answer", "ttft", "tpot", "itl", "cold", "cold_miss", OTHER, *STAGES)),
    *("tokens_per_s", "peak_pss", "steady_pss", "peak_hwm", "peak_gpu", "bundle_bytes", "answer_mj", "agreement"),
}
"""Metrics that a run may have; those of its task besides."""

_STATS = ("median", "value", "mean", "max")
"""What a rule means that names none: the first of these that there is."""


class Evidence(Struct, frozen=True):
    """A value with its interval; both ends are the value where nothing about it is chance."""

    stat: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    lacks: str = ""
    """Why nothing can be concluded from it; empty if something can."""


def check_metric(run: Run, metric: str) -> None:
    """Refuse a name that neither this run nor any other has.

    Raises:
        UsageError: with the name that was probably meant.
    """
    known = {*(row.metric for row in run.results.abs), *(row.metric for row in run.results.ratios)} | quality_of(run)
    if metric in known | KNOWN:
        return
    close = get_close_matches(metric, sorted(known | KNOWN), n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"this run has: {', '.join(sorted(known))}"
    raise UsageError(f"no metric is called `{metric}`", hint=hint)


def quality_of(run: Run) -> set[str]:
    """Metrics that are of answers rather than of what they cost."""
    return {"agreement", "exact", "edit", *(score.metric for score in run.quality if score.metric)}


def evidence_for(run: Run, c: int, rule: Rule) -> Evidence:
    """What decides ``rule`` for candidate ``c``."""
    if rule.noninferior is not None:
        return _lost(run, c, rule.metric, rule.noninferior)
    if rule.is_ratio:
        return _ratio(run, c, rule.metric)
    return _mean_score(run, c, rule.metric) or _absolute(run, c, rule.metric, rule.stat)


def evidence_beside(pair: Pair, rule: Rule, found: Comparison) -> Evidence:
    """What another run says of it. Drift between the two may have moved a time by ``found.floor``, either way."""
    if rule.noninferior is not None:
        own = [each for each in pair.quality if each.metric == rule.metric and each.lost is not None]
        judged = [Evidence("lost", each.lost, each.low, each.high) for each in own]
        return _worst(judged, rule.noninferior) or Evidence(
            "lost", lacks=f"`{rule.metric}` was not judged in both runs"
        )
    row = next((each for each in pair.differences if each.metric == rule.metric), None)
    if row is None or row.ratio is None:
        return Evidence(RATIO, lacks=f"`{rule.metric}` was not measured in both runs")
    if not found.same_machine:
        return Evidence(RATIO, row.ratio, row.low, row.high, "the machines differ")
    if row.low is None or row.high is None:
        is_size = kind_of(rule.metric) == "size"
        ends = row.ratio if is_size else None
        return Evidence(RATIO, row.ratio, ends, ends, "" if is_size else "it has no interval")
    room = 1.0 if found.paired else 1 + found.floor
    return Evidence(RATIO, row.ratio, row.low / room, row.high * room)


def bias_in(run: Run, metric: str) -> float:
    """By what share the baseline certainly differs from itself, the last: smaller differences are none of its making.
    As in the verdicts of the run (`ratios.bias_of`)."""
    found = run.ratio(len(run.candidates) - 1, metric)
    return bias_between(found.low, found.high) if found and found.low > 0 else 0.0


def _ratio(run: Run, c: int, metric: str) -> Evidence:
    if metric == RATE:  # runs keep the ratio of its inverse
        time = _ratio(run, c, "tpot_ms")
        value, high, low = (1 / each if each else None for each in (time.value, time.low, time.high))
        return Evidence(RATIO, value, low, high, time.lacks)
    if found := run.ratio(c, metric):
        alone = len({sample.process for sample in run.rounds}) == 1
        lacks = "one group of processes allows no claim" if alone else ""
        return Evidence(RATIO, found.ratio, found.low, found.high, lacks)
    own, base = (_absolute(run, each, metric, None) for each in (c, 0))
    if own.lacks or base.lacks or not own.value or not base.value:
        return Evidence(RATIO, lacks=own.lacks or base.lacks or "there is no ratio to 0")
    ratio = own.value / base.value
    if own.stat != "value":
        return Evidence(RATIO, ratio, lacks="it was not measured in pairs")
    return Evidence(RATIO, ratio, ratio, ratio)


def _absolute(run: Run, c: int, metric: str, stat: str | None) -> Evidence:
    found = next((row for each in ([stat] if stat else _STATS) if (row := run.absolute(c, metric, each))), None)
    if found is None:
        return Evidence(stat or "", lacks=f"`{metric}` was not measured" + (f" as {stat}" if stat else ""))
    low, high = _interval(run, found)
    lacks = ""
    if found.value is None or not found.valid:
        lacks = found.note or f"too few samples or processes (n={found.n})"
    elif low is None and high is None:
        lacks = "it has no interval"
    return Evidence(found.stat, found.value, low, high, lacks)


def _interval(run: Run, found: Absolute) -> tuple[float | None, float | None]:
    """A size is what it is; a percentile has an upper bound alone, and lies above the median; so does the highest."""
    if found.stat == "value":
        return found.value, found.value
    if found.stat == "max":
        return found.value, None
    if found.low is None and found.stat.startswith("p"):
        median = run.absolute(found.c, found.metric)
        return median.low if median else None, found.high
    return found.low, found.high


def _mean_score(run: Run, c: int, metric: str) -> Evidence | None:
    """Over the inputs of all tasks that are judged by this metric."""
    scores = _scores(run, c, metric)
    if not scores:
        return None
    values = _known(value for score in scores for value in _values(score, metric))
    if len(values) < 2:
        return Evidence("mean", lacks=f"too few inputs ({len(values)})")
    low, high = mean_interval(values)
    # No wrong answer among a few is no proof that there is none among many.
    return Evidence(
        "mean", float(values.mean()), min(low, float(values.mean()) * (1 - most_changed(len(values)))), high
    )


def _lost(run: Run, c: int, metric: str, allowed: float) -> Evidence:
    """Points of 100 below the baseline, in the task that lost most."""
    found = _worst([_lost_in(score, metric) for score in _scores(run, c, metric)], allowed)
    return found or Evidence("lost", lacks=f"`{metric}` was not judged")


def _worst(found: list[Evidence], allowed: float) -> Evidence | None:
    """Of several tasks one that certainly lost more than ``allowed``, else one of which that is not known."""
    certain = [each for each in found if each.low is not None and each.low > allowed]
    lacking = [each for each in found if each.lacks]
    open_ = sorted(found, key=lambda each: each.high or 0.0, reverse=True)
    return next(iter((*certain, *lacking, *open_)), None)


def _lost_in(score: Score, metric: str) -> Evidence:
    value, low, high = score.lost, score.low, score.high
    if metric == "agreement" and score.c == score.reference:
        return Evidence("lost", 0.0, 0.0, 0.0)
    if metric != (score.metric or "agreement"):  # agreement, where the task has a metric of its own
        lost = 100 * (1 - _known(score.agree))
        if len(lost):
            value, (low, high) = float(lost.mean()), mean_interval(lost)
            high = max(high, 100 * most_changed(len(lost)))
    if value is None or low is None or high is None:
        return Evidence("lost", value, lacks="too few inputs have been judged")
    return Evidence("lost", value, low, high)


def _scores(run: Run, c: int, metric: str) -> list[Score]:
    """Those of this metric; agreement stands in every one."""
    return [score for score in run.quality if score.c == c and metric in (score.metric, "agreement")]


def _values(score: Score, metric: str) -> tuple[float | None, ...]:
    return score.agree if metric == "agreement" else score.per_input


def _known(values: Iterable[float | None]) -> np.ndarray:
    return np.array([value for value in values if value is not None], dtype=np.float64)
