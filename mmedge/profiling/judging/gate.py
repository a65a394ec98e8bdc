"""Whether a run keeps the rules: each holds, is broken or cannot be told, by its whole interval, not by the middle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from msgspec import Struct

from mmedge.errors import UsageError
from mmedge.profiling.judging.comparison import UNDECIDED, UNPAIRED, UNVERIFIED, Comparison
from mmedge.profiling.judging.evidence import (
    Evidence,
    bias_in,
    check_metric,
    evidence_beside,
    evidence_for,
    quality_of,
)
from mmedge.profiling.judging.matching import doubts_of, others_of
from mmedge.profiling.judging.rules import Rule, Rules
from mmedge.profiling.numbers.disturbances import decides_nothing, throttled_rounds
from mmedge.profiling.numbers.quantities import Kind, kind_of
from mmedge.profiling.run import Run

Word: TypeAlias = Literal["holds", "broken", "inconclusive"]

WORSE, COSTLIER = 7, 8
"""Exit codes: quality, then time or size, then neither way (`comparison.UNDECIDED`)."""


class Finding(Struct, frozen=True):
    """A rule and a candidate."""

    rule: int
    """From 1, as in the file."""
    candidate: str
    metric: str
    stat: str
    kind: Kind
    value: float | None
    low: float | None
    high: float | None
    at_least: float | None
    at_most: float | None
    outcome: Word
    reason: str
    """Why it is inconclusive."""
    quality: bool
    """Whether it is about answers rather than what they cost."""
    fails: bool
    """Whether it counts: an inconclusive rule may only warn."""

    @property
    def rounds_help(self) -> bool:
        """Whether it may be decided by measuring longer."""
        is_measured = (self.value, self.low, self.high) != (None, None, None)
        return self.outcome == "inconclusive" and is_measured and not self.quality and kind_of(self.metric) != "size"


class Outcome(Struct, frozen=True):
    """What came of all the rules."""

    findings: tuple[Finding, ...]
    doubts: tuple[str, ...] = ()
    """Why the run as a whole allows no conclusion; then none counts."""
    marks: tuple[str, ...] = ()
    """``UNVERIFIED``, ``UNPAIRED``: what it was told to accept."""

    @property
    def exit_code(self) -> int:
        if self.doubts:
            return UNDECIDED
        broken = [finding for finding in self.findings if finding.outcome == "broken"]
        if any(finding.quality for finding in broken):
            return WORSE
        if broken:
            return COSTLIER
        return UNDECIDED if any(each.outcome == "inconclusive" and each.fails for each in self.findings) else 0

    @property
    def undecided(self) -> bool:
        """Whether measuring longer may decide a rule that has not been; it cures no doubt about the whole run."""
        return not self.doubts and any(finding.rounds_help for finding in self.findings)


def outcome(
    run: Run, rules: Rules, *, against: Comparison | None = None, unverified: bool = False, unpaired: bool = False
) -> Outcome:
    """Judge ``run``.

    A run that was not completed, or is not valid, decides nothing: `Outcome.doubts` then say why. While one is being
    measured, `Outcome.undecided` tells whether it should go on.

    Args:
        against: what `compare.compare` says of this run, as B: then rules that compare are about its pairs.
        unverified: accept candidates whose golden samples fail or were not asked.
        unpaired: accept ratios of candidates that were not measured in turns, round by round.

    Raises:
        UsageError: a rule names a metric or a candidate that does not exist, or what was not accepted.
    """
    findings = tuple(_findings(run, rules, against))
    beside = against.marks if against else ()
    marks = (*_unverified(run, against, unverified), *_unpaired(run, rules, unpaired or bool(against)), *beside)
    return Outcome(findings, (*_doubts(run), *_doubts_beside(against)), tuple(dict.fromkeys(marks)))


def _findings(run: Run, rules: Rules, against: Comparison | None) -> Iterator[Finding]:
    quality = quality_of(run)
    for number, rule in enumerate(rules.rule, 1):
        check_metric(run, rule.metric)
        if rule.noninferior is not None and rule.metric not in quality:
            raise UsageError(
                f"rule {number}: `noninferior` is for metrics of answers, `{rule.metric}` is none",
                hint=f"this run has: {', '.join(sorted(quality))}",
            )
        is_quality = rule.noninferior is not None or rule.metric in quality
        fails = (rule.inconclusive or rules.inconclusive) == "fail"
        for name, found, bias in _evidence(run, number, rule, against):
            yield _finding(number, rule, name, found, bias, is_quality, fails)


def _evidence(run: Run, number: int, rule: Rule, against: Comparison | None) -> Iterator[tuple[str, Evidence, float]]:
    """Of each candidate that the rule is about: its name, and the bias that the baseline shows against itself."""
    if against and rule.compares:
        pairs = [pair for pair in against.pairs if rule.is_about(pair.b)]
        if not pairs:
            raise _about_nobody(number, rule, [pair.b for pair in against.pairs])
        for pair in pairs:
            yield pair.b, evidence_beside(pair, rule, against), 0.0
        return
    bias = bias_in(run, rule.metric) if rule.is_ratio else 0.0
    for c in _concerned(run, number, rule):
        yield run.candidates[c].name, evidence_for(run, c, rule), bias


def _concerned(run: Run, number: int, rule: Rule) -> tuple[int, ...]:
    others = others_of(run)
    # Named, or alone, the baseline is judged too by what compares nothing.
    asked = others if rule.compares else (0, *others) if rule.candidate or not others else others
    if not asked:
        hint = "profile two bundles at once, or name an earlier run with --baseline"
        raise UsageError(f"rule {number} compares with the baseline, which is alone", hint=hint)
    if found := tuple(c for c in asked if rule.is_about(run.candidates[c].name)):
        return found
    raise _about_nobody(number, rule, [run.candidates[c].name for c in asked])


def _about_nobody(number: int, rule: Rule, names: list[str]) -> UsageError:
    return UsageError(
        f"rule {number} is about `{rule.candidate}`, and no candidate is", hint=f"there are: {', '.join(names)}"
    )


def _finding(number: int, rule: Rule, name: str, found: Evidence, bias: float, quality: bool, fails: bool) -> Finding:
    at_least, at_most = (None, rule.noninferior) if rule.noninferior is not None else rule.bounds
    word = "inconclusive" if found.lacks else _judged(found, at_least, at_most, bias)
    return Finding(
        rule=number,
        candidate=name,
        metric=rule.metric,
        stat=found.stat,
        kind="number" if rule.noninferior is not None else rule.kind,
        value=found.value,
        low=found.low,
        high=found.high,
        at_least=at_least,
        at_most=at_most,
        outcome=word,
        reason=found.lacks or (_why_open(found, at_least, at_most, bias, quality) if word == "inconclusive" else ""),
        quality=quality,
        fails=fails,
    )


def _why_open(found: Evidence, at_least: float | None, at_most: float | None, bias: float, quality: bool) -> str:
    if _judged(found, at_least, at_most, 0.0) == "broken":
        return f"the baseline differs from itself by up to {bias:.1%}"
    advice = "; more inputs narrow it, not more time" if quality else ""
    return f"the interval lies on both sides of the bound{advice}"


def _judged(found: Evidence, at_least: float | None, at_most: float | None, bias: float) -> Word:
    """Broken only where the difference to the baseline is more than what it shows against itself (``bias``)."""
    low, high = found.low, found.high
    too_high = at_most is not None and low is not None and low > _seen_above(at_most, bias)
    too_low = at_least is not None and at_least > 0 and high is not None and high < 1 / _seen_above(1 / at_least, bias)
    if too_high or too_low:
        return "broken"
    below = at_most is None or (high is not None and high <= at_most)
    above = at_least is None or (low is not None and low >= at_least)
    return "holds" if below and above else "inconclusive"


def _seen_above(ratio: float, bias: float) -> float:
    """The lowest ratio that is certainly above ``ratio``, where a difference is claimed at all."""
    return max(ratio, 1 + bias) if ratio >= 1 else ratio


def _doubts(run: Run) -> Iterator[str]:
    if not run.complete:
        yield f"the run was not completed ({run.protocol.stop_reason or 'it was stopped'})"
    for doubt in doubts_of(run):
        yield f"the run is not valid: {doubt}"
    if decides_nothing(run.samples):
        throttled, of = throttled_rounds(run.samples)
        yield f"the processor was throttled in {throttled} of {of} rounds"


def _doubts_beside(against: Comparison | None) -> Iterator[str]:
    if against is None:
        return
    if not against.a.complete:
        yield f"`{against.a.file}` was not completed"
    for doubt in against.a.doubts:
        yield f"`{against.a.file}` is not valid: {doubt}"


def _unverified(run: Run, against: Comparison | None, accepted: bool) -> tuple[str, ...]:
    names = [candidate.name for candidate in run.candidates if candidate.unverified]
    names += [pair.a for pair in against.pairs if UNVERIFIED in pair.marks] if against else []
    if names and not accepted:
        raise UsageError(f"`{names[0]}` is not verified: its answers may be wrong", hint="accept it with --unverified")
    return (UNVERIFIED,) if names else ()


def _unpaired(run: Run, rules: Rules, accepted: bool) -> tuple[str, ...]:
    if run.protocol.interleave == "rounds" or not any(rule.is_ratio for rule in rules.rule):
        return ()
    if not accepted:
        raise UsageError(
            "the candidates of this run were measured in blocks, not in turns: their ratios are not paired",
            hint="accept it with --unpaired, or measure where they fit into memory together",
        )
    return (UNPAIRED,)
