"""Reasons to distrust a profile, each with something to do about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from mmedge.profiling.order import block_length, whole_blocks
from mmedge.profiling.report import Doubt, Profile, Run
from mmedge.profiling.statistics import FEWEST, spread

SLOW_FIRST = 1.5
"""Times the median."""
ENOUGH = 3
"""Runs for a median."""
WIDE = 0.2
"""Of the ratio of two identical processes, from round to round; an undisturbed machine stays well below."""
LONGER = 0.05
"""Share by which answers may differ in length while their times still stand for the same work."""
STARTED = 30
"""Rounds that are advised to those who asked for too few."""


def doubts_of(profile: Profile) -> tuple[Doubt, ...]:
    """All that apply to a profile with results."""
    return tuple(doubt for reason in REASONS for doubt in reason(profile))


def few_rounds(profile: Profile) -> Iterator[Doubt]:
    """An interval needs some, balance a whole number of blocks."""
    rounds, count = profile.settings.rounds, len(profile.candidates)
    if rounds < FEWEST:
        advice = f"use --rounds {whole_blocks(count, STARTED)}"
        yield Doubt(f"{rounds} rounds are too few for a confidence interval", advice)
    elif rounds % block_length(count):
        yield Doubt(f"in {rounds} rounds not everyone had every place", f"use --rounds {whole_blocks(count, rounds)}")


def differs_from_itself(profile: Profile) -> Iterator[Doubt]:
    """The comparison whose true answer is known."""
    twin = profile.results[-1].metric("answer")
    if twin and twin.ratio and twin.verdict != "same":
        apart = f"x{twin.ratio.low:.3f} to x{twin.ratio.high:.3f}"
        yield Doubt(
            f"the first candidate against itself came out as {apart}: smaller differences mean nothing here",
            "close other programs, or use more --rounds or --sittings",
        )


def wide_spread(profile: Profile) -> Iterator[Doubt]:
    """Two processes of one program in the same round should take the same time."""
    first, twin = (_by_round(profile, number) for number in (0, len(profile.candidates) - 1))
    ratios = spread([np.log(twin[index].answer_ms / first[index].answer_ms) for index in first])
    if ratios.quartiles > WIDE:
        yield Doubt(
            f"the same program is {ratios.quartiles:.0%} slower or faster from one round to the next",
            "close other programs",
        )


def slow_first_runs(profile: Profile) -> Iterator[Doubt]:
    """In the sitting in the middle, so that one bad moment is no reason."""
    firsts = {min(run.round for run in profile.rounds if run.sitting == sitting) for sitting in _sittings(profile)}
    for number, candidate in enumerate(profile.candidates):
        own = _by_round(profile, number)
        later = [run for index, run in own.items() if index not in firsts]
        slow = float(np.median([_times_usual(own[index], later) for index in firsts]))
        if slow > SLOW_FIRST:
            more = max(2 * profile.settings.warmup, 10)
            yield Doubt(f"the first run of {candidate.name} took {slow:.1f}x the median", f"use --warmup {more}")


def changing_answers(profile: Profile) -> Iterator[Doubt]:
    """Greedy answers to one picture can only be the same every time."""
    texts: dict[tuple[int, int], set[str]] = defaultdict(set)
    for run in profile.runs:
        texts[run.candidate, run.query].add(run.text)
    for number, candidate in enumerate(profile.candidates):
        changing = [query for (of, query), found in texts.items() if of == number and len(found) > 1]
        if changing:
            yield Doubt(
                f"{candidate.name} answers differently from round to round ({len(changing)} pictures, first "
                f"{profile.queries[changing[0]].name})",
                "distrust its accuracy: the engine computes differently from run to run",
            )


def longer_answers(profile: Profile) -> Iterator[Doubt]:
    """Whole answers of different length are different work."""
    lengths = [_mean_length(profile, number) for number in range(len(profile.candidates))]
    for candidate, length in zip(profile.candidates, lengths, strict=True):
        if lengths[0] and abs(length / lengths[0] - 1) > LONGER:
            more = f"{abs(length / lengths[0] - 1):.0%} {'more' if length > lengths[0] else 'fewer'}"
            yield Doubt(
                f"{candidate.name} writes {more} tokens than {profile.candidates[0].name}",
                "compare first token and tokens/s rather than the whole answer",
            )


def left_out_pictures(profile: Profile) -> Iterator[Doubt]:
    """Accuracy is told of the pictures that were answered, speed too."""
    asked, answered = len(profile.queries), len({run.query for run in profile.rounds})
    if answered < asked:
        yield Doubt(f"{answered} of {asked} pictures were answered", f"use --rounds {asked}")


def busy_machine(profile: Profile) -> Iterator[Doubt]:
    """Before anything of ours ran."""
    machine = profile.machine
    if machine.before.load > machine.cores:
        yield Doubt(
            f"{machine.before.load:.1f} processes wanted the {machine.cores} cores before it began",
            "close other programs",
        )


def slow_clock(profile: Profile) -> Iterator[Doubt]:
    """Some governors answer to load with a delay, or not at all."""
    slow = [governor for governor in profile.machine.before.governors if governor != "performance"]
    if slow:
        yield Doubt(f"the clock rate varies (governor {', '.join(slow)})", "sudo cpupower frequency-set -g performance")


def battery(profile: Profile) -> Iterator[Doubt]:
    """Most machines run slower on it."""
    if profile.machine.before.on_battery:
        yield Doubt("the machine runs on its battery", "connect it to the mains")


def swapping(profile: Profile) -> Iterator[Doubt]:
    """Pages that come back from the disk cost milliseconds."""
    before, after = profile.machine.before, profile.machine.after or profile.machine.before
    if max(before.swap_mb, after.swap_mb) >= 1:
        yield Doubt(f"{max(before.swap_mb, after.swap_mb):.0f} MiB of memory were swapped out", "free some memory")


REASONS = (
    few_rounds,
    differs_from_itself,
    wide_spread,
    slow_first_runs,
    changing_answers,
    longer_answers,
    left_out_pictures,
    busy_machine,
    slow_clock,
    battery,
    swapping,
)
"""Those that make the numbers worth least come first."""


def _by_round(profile: Profile, candidate: int) -> dict[int, Run]:
    return {run.round: run for run in profile.rounds if run.candidate == candidate}


def _mean_length(profile: Profile, candidate: int) -> float:
    return float(np.mean([len(run.token_ms) for run in profile.rounds if run.candidate == candidate]))


def _sittings(profile: Profile) -> set[int]:
    return {run.sitting for run in profile.rounds}


def _times_usual(first: Run, later: Sequence[Run]) -> float:
    """How many times as long as later runs it took, on the same picture if there are enough."""
    same = [run.answer_ms for run in later if run.query == first.query]
    usual = same if len(same) >= ENOUGH else [run.answer_ms for run in later]
    return first.answer_ms / float(np.median(usual)) if usual else 1.0
