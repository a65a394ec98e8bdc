"""Reasons to distrust a run, each with something to do about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from mmedge.profiling.numbers.disturbances import KINDS, OFTEN, flagged_rounds
from mmedge.profiling.run import OTHER, Flag, Run, Validity

LEFT_OVER = 0.03
"""Share of an answer that no stage accounts for."""
SLOW_FIRST = 1.5
"""Times the median."""
ENOUGH = 3
"""Answers to the same input that a first one is compared with."""
LONGER = 0.05
"""Share by which answers may differ in length while their times still stand for the same work."""
LISTED = 3
"""Names that are told of many."""
FEWEST_ROUNDS = 20
FEWEST_PROCESSES = 5


def validity_of(run: Run) -> Validity:
    """All that the run itself shows; not ``ok`` where something is an error."""
    flags = tuple(flag for reason in REASONS for flag in reason(run))
    return Validity(not any(flag.severity == "error" for flag in flags), flags)


def incomplete(run: Run) -> Iterator[Flag]:
    """It was ended, or it measured nothing."""
    if not (run.rounds or run.load or run.minutes):
        yield Flag("nothing", "error", "nothing was measured", "give it more time: --budget")
    if not run.complete:
        yield Flag("incomplete", "warning", "the run was ended before it was done", "run it again")


def unverified(run: Run) -> Iterator[Flag]:
    """Speed of wrong answers."""
    names = [candidate.name for candidate in run.candidates[:-1] if candidate.unverified]
    if names:
        text = f"unverified: {_list(names)} does not answer its golden samples as it should, or was not asked"
        yield Flag("unverified", "error", text, "`mmedge verify` says more")


def few(run: Run) -> Iterator[Flag]:
    """Intervals need both."""
    processes, rounds = len({sample.process for sample in run.rounds}), len({sample.round for sample in run.rounds})
    if rounds and processes < FEWEST_PROCESSES:
        text = f"{processes} of {FEWEST_PROCESSES} groups of processes" + (
            ": what differs between processes is unknown, nothing is claimed"
            if processes == 1
            else " make wide intervals"
        )
        yield Flag("few_processes", "warning", text, "give it more time: --budget, or --processes 5")
    if rounds and rounds < FEWEST_ROUNDS:
        yield Flag("few_rounds", "warning", f"{rounds} rounds are few", "give it more time: --budget")


def differs_from_itself(run: Run) -> Iterator[Flag]:
    """The comparison whose true answer is known."""
    aa = run.results.aa
    if aa and aa.verdict in ("faster", "slower"):
        text = f"the baseline came out as {aa.verdict} than itself (x{aa.low:.3f} to x{aa.high:.3f})"
        yield Flag("aa_differs", "error", text, "close other programs, and run it again")
    elif aa and aa.floor > run.protocol.margin:
        floor = f"{aa.floor:.1%}" if aa.floor < 1 else "more than 100%"
        text = f"the baseline may seem {floor} off itself, the margin is {run.protocol.margin:.1%}"
        yield Flag("aa_floor", "warning", text, "close other programs, or give it more time: --budget")


def engines(run: Run) -> Iterator[Flag]:
    """Something else computed than was asked for."""
    for candidate in run.candidates[:-1]:
        others = {part: name for part, name in candidate.engines.items() if candidate.backend not in (None, name)}
        if others:
            text = f"{candidate.name}: {_list([f'{part} runs on {name}' for part, name in others.items()])}"
            yield Flag("other_engine", "error", text, f"`mmedge doctor` says why not {candidate.backend}")
        if candidate.engine_cache == "miss":
            text = f"{candidate.name} was compiled for this machine at its first start"
            yield Flag("cache_miss", "note", text, "`mmedge compile` does it beforehand")


def blocks(run: Run) -> Iterator[Flag]:
    """What answers minutes apart is compared."""
    if run.protocol.interleave == "blocks":
        text = "the candidates do not fit into memory together, and were opened in turn"
        yield Flag("blocks", "warning", text, "compare fewer at once")


def unsteady(run: Run) -> Iterator[Flag]:
    """Processes that had not come to their pace before they counted."""
    unsteady = [warmup.c for warmup in run.warmups if not warmup.steady]
    if unsteady:
        names = _list([run.candidates[c].name for c in sorted({*unsteady})])
        text = f"{len(unsteady)} of {len(run.warmups)} processes had no steady state after warming up: {names}"
        yield Flag("no_steady_state", "warning", text, "give it more time: --budget")


def slow_first_answers(run: Run) -> Iterator[Flag]:
    """Beside later answers to the same input, and in the median process, so that one bad moment is no reason."""
    for c, candidate in enumerate(run.candidates):
        own = [sample for sample in run.rounds if sample.c == c]
        begins: dict[int, int] = {}
        for sample in own:
            begins.setdefault(sample.process, sample.round)
        firsts = [sample for sample in own if sample.round == begins[sample.process]]
        later = [sample for sample in own if sample.round != begins[sample.process]]
        times = {at: [s.answer_ns for s in later if s.input == at] for at in {first.input for first in firsts}}
        slow = [s.answer_ns / np.median(times[s.input]) for s in firsts if len(times[s.input]) >= ENOUGH]
        if slow and float(np.median(slow)) > SLOW_FIRST:
            text = f"the first answer of {candidate.name} took {np.median(slow):.1f}x the usual"
            yield Flag("slow_first", "warning", text, "give it more time: --budget")


def disturbed(run: Run) -> Iterator[Flag]:
    """What happened to the machine meanwhile, by how many rounds it touched."""
    rounds = flagged_rounds(run.host, run.sentinel)
    counts = Counter(name for flags in rounds.values() for name in flags)
    of = max(len(run.host), len(run.sentinel))
    ratio = _worst_clean(run)
    effect = f"; without them ratios differ by at most {ratio:.1%}" if ratio is not None else ""
    for name, (text, advice) in KINDS.items():
        if counts[name] and (name != "sentinel" or counts[name] > OFTEN * of):
            yield Flag(name, "warning", f"{text} in {counts[name]} of {of} rounds{effect}", advice)


def left_over(run: Run) -> Iterator[Flag]:
    """Stages that do not add up to the answer."""
    for c, candidate in enumerate(run.candidates[:-1]):
        shares = [
            1 - sum(sample.stages_ns.values()) / sample.answer_ns
            for sample in run.rounds
            if sample.c == c and sample.stages_ns and sample.answer_ns
        ]
        if shares and float(np.median(shares)) > LEFT_OVER:
            text = f"{np.median(shares):.1%} of an answer of {candidate.name} belong to no stage (`{OTHER}`)"
            yield Flag("other", "warning", text, "compare whole answers rather than stages")


def changing_answers(run: Run) -> Iterator[Flag]:
    """Greedy answers to one input can only be the same every time."""
    texts: dict[int, Counter[int]] = defaultdict(Counter)
    for c, at, _ in {(answer.c, answer.input, answer.text) for answer in run.answers}:
        texts[c][at] += 1
    for c, found in sorted(texts.items()):
        changing = sorted(at for at, count in found.items() if count > 1)
        if changing:
            first = run.inputs.items[changing[0]].id
            text = f"{run.candidates[c].name} answers {len(changing)} inputs differently each time, such as {first}"
            yield Flag("changing_answers", "warning", text, "distrust its quality: the engine computes differently")


def longer_answers(run: Run) -> Iterator[Flag]:
    """Whole answers of different length are different work."""
    lengths = [
        float(np.mean(found)) if (found := [len(s.token_ns) for s in run.rounds if s.c == c]) else 0.0
        for c in range(len(run.candidates))
    ]
    for candidate, length in zip(run.candidates[1:-1], lengths[1:-1], strict=True):
        if lengths[0] and length and abs(length / lengths[0] - 1) > LONGER:
            more = "more" if length > lengths[0] else "fewer"
            text = f"{candidate.name} writes {abs(length / lengths[0] - 1):.0%} {more} tokens than the baseline"
            yield Flag("longer_answers", "warning", text, "compare the first token and tokens/s, not whole answers")


def left_out(run: Run) -> Iterator[Flag]:
    """What is said holds for the inputs that were answered."""
    asked, of = len({sample.input for sample in run.rounds}), len(run.inputs.items)
    if run.rounds and asked < of:
        yield Flag("left_out", "note", f"{asked} of {of} inputs were asked", "give it more time: --budget")


def machine(run: Run) -> Iterator[Flag]:
    """What it is, and how it is set."""
    found = run.machine
    slow = [governor for governor in found.processor.governors if governor != "performance"]
    if found.on_battery:
        yield Flag("on_battery", "warning", "the machine runs on its battery", "connect it to the mains")
    if slow:
        advice = "sudo cpupower frequency-set -g performance"
        yield Flag("governor", "warning", f"the clock rate varies (governor {', '.join(slow)})", advice)
    if found.processor.smt:
        yield Flag("smt", "note", "cores run two threads each, which share it", "use as many --threads as cores")
    for kind, name in (("virtual machine", found.virtual), ("container", found.container)):
        if name:
            yield Flag(kind.replace(" ", "_"), "note", f"measured in a {kind} ({name})", "others may share the machine")


REASONS = (
    incomplete,
    unverified,
    engines,
    differs_from_itself,
    few,
    blocks,
    unsteady,
    slow_first_answers,
    disturbed,
    left_over,
    changing_answers,
    longer_answers,
    left_out,
    machine,
)
"""Those that make the numbers worth least come first."""


def _worst_clean(run: Run) -> float | None:
    """How far ratios over all rounds and over those without flags are apart."""
    apart = [abs(r.clean / r.ratio - 1) for r in run.results.ratios if r.metric == "answer_ms" and r.clean]
    return max(apart, default=None)


def _list(names: Sequence[str]) -> str:
    """The first three."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
