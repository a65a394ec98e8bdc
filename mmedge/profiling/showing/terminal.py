"""A run as text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterator

from mmedge.profiling.numbers.estimates import stages_of
from mmedge.profiling.numbers.percentiles import PERCENTILES
from mmedge.profiling.numbers.quality import task_of
from mmedge.profiling.run import OTHER, Roof, Run, Score
from mmedge.profiling.showing.terminal_rows import (
    NONE,
    TWIN,
    interval,
    marks,
    mebibytes,
    middle,
    number,
    points,
    printable,
    table,
    wrapped,
)
from mmedge.profiling.showing.terminal_tables import load, soak, starts

CHANGED = 3
"""Changed answers that are shown of each candidate."""

_SPEED = ("{:<3}", "{:>10}", "{:>17}", "{:>9}", "{:>15}", " {}")
_SPEED_OF_TASKS = ("{:<3}", "{:<7}", *_SPEED[1:])
_COST = ("{:<3}", "{:>8}", "{:>8}", "{:>8}", "{:>8}", "{:>9}", "{:>19}", "{}")
_COST_OF_TASKS = ("{:<7}", "{:>7}", *_COST[2:])
_SAID = {"accepted": "ok", "worse": "WORSE", "differs": "differs", "inconclusive": "unclear", None: ""}


def lines(run: Run) -> Iterator[str]:
    """What a person should know: who took part, how fast, at what cost, how good, and what to doubt."""
    parts = (
        _heading(run),
        _speed(run),
        _costs(run),
        _details(run),
        starts(run),
        load(run),
        soak(run),
        _changed(run),
        _doubts(run),
    )
    for place, part in enumerate(parts):
        for at, line in enumerate(part):
            if place and not at:
                yield ""
            yield line


def _heading(run: Run) -> Iterator[str]:
    machine, protocol = run.machine, run.protocol
    aa, rounds = run.results.aa, {sample.round for sample in run.rounds}
    known = aa is not None and aa.floor < 1
    seen = f"noise floor {aa.floor:.1%}" if aa and known else f"noise floor {'over 100%' if aa else 'unknown'}"
    counts = f"{len({s.process for s in run.rounds})} processes  {len(rounds)} rounds  {_seconds(run):.0f} s"
    threads = sorted({candidate.threads or machine.processor.cores for candidate in run.candidates})
    used = "/".join(map(str, threads))
    yield from wrapped("", f"{' and '.join(run.tasks)}  {used} of {machine.processor.cores} cores  {counts}   {seen}")
    system = machine.virtual or machine.container
    name = ", ".join(dict.fromkeys((machine.name, machine.processor.model)))
    yield from wrapped("", f"{name}{f' ({system})' if system else ''}")
    for mark, candidate in zip(marks(run), run.candidates, strict=True):
        said = " and ".join(dict.fromkeys(candidate.engines.values())) or candidate.backend or "its target's engines"
        what = f"{candidate.name} ({candidate.precision}, {said})"
        yield from wrapped(f"{mark:<3} ", "the first again: what sets it apart is chance" if mark[0] == TWIN else what)
    if any(candidate.unverified for candidate in run.candidates):
        yield from wrapped("!   ", "UNVERIFIED: fails its golden samples, or was not asked for them")
    if not run.complete:
        yield "INCOMPLETE: it was ended before it was done"
    if protocol.interleave == "blocks":
        yield "measured in blocks: not all fit into memory at once"


def _seconds(run: Run) -> float:
    ends = [sample.start_ns + sample.answer_ns for sample in run.samples]
    return (max(ends) - min(sample.start_ns for sample in run.samples)) / 1e9 if ends else 0.0


def _speed(run: Run) -> Iterator[str]:
    """One line a candidate; of several tasks one more for each, as no answer takes what lies between them."""
    rows: list[tuple[str, ...]] = []
    tasks = _tasks(run)
    for c, mark in enumerate(marks(run)):
        answer, ratio = run.absolute(c, "answer_ms"), run.ratio(c)
        if c:
            compared = (f"x{ratio.ratio:.3f}" if ratio else NONE, interval(ratio), ratio.verdict if ratio else NONE)
        else:
            compared = ("baseline", "", "")
        rows.append((mark, "all", "", "", *compared) if tasks else (mark, middle(answer), interval(answer), *compared))
        for task in tasks:
            answer = run.absolute(c, f"{task}.answer_ms")
            rows.append(("", _short(task), middle(answer), interval(answer), "", "", ""))
    heads = ("answer ms", "95 % interval", "to 1", "95 % interval", "verdict")
    yield from table(_SPEED_OF_TASKS if tasks else _SPEED, ("", *(("task",) if tasks else ()), *heads), rows)
    margin, aa = run.protocol.margin, run.results.aa
    least = margin if aa is None or aa.low <= 1 <= aa.high else max(margin, aa.floor)
    yield from wrapped("", f"faster, slower: by more than {least:.1%}; same: by less than {margin:.1%}; to 1: by round")


def _costs(run: Run) -> Iterator[str]:
    """One line a candidate; one more for each of several tasks."""
    rows: list[tuple[str, ...]] = []
    tasks = _tasks(run)
    for c, mark in enumerate(marks(run)):
        size = tuple(mebibytes(_value(run, c, metric)) for metric in ("peak_pss", "bundle_bytes"))
        if not tasks:
            rows.append((mark, *_pace(run, c, ""), *size, *_quality(run, c, None)))
            continue
        rows.append((mark, "", "", *size, "", "", ""))
        rows += [(_short(task), *_pace(run, c, f"{task}."), "", "", *_quality(run, c, task)) for task in tasks]
    metrics = "/".join(dict.fromkeys(score.metric or "agreement" for score in run.quality))
    heads = ("", "TTFT ms", "tokens/s", "peak MiB", "file MiB", metrics if 0 < len(metrics) < 10 else "quality")
    yield from table(_COST_OF_TASKS if tasks else _COST, (*heads, "points lost", ""), rows)
    judged = " and ".join(dict.fromkeys(map(_beside, run.quality)))
    lost = f"points lost: of 100, {judged}, 95 % interval over inputs; " if judged else ""
    yield from wrapped("", f"{lost}peak: proportional set size (PSS)")


def _beside(score: Score) -> str:
    return f"to 1 by {score.metric}" if score.metric else f"to {score.reference + 1} by agreement"


def _tasks(run: Run) -> tuple[str, ...]:
    """Several that were asked; none where all answers are of one."""
    return run.tasks if len(run.tasks) > 1 else ()


def _short(task: str) -> str:
    return printable(task)[:7]


def _pace(run: Run, c: int, task: str) -> tuple[str, str]:
    first, rate = (run.absolute(c, f"{task}{metric}") for metric in ("ttft_ms", "tokens_per_s"))
    return middle(first), middle(rate)


def _quality(run: Run, c: int, task: str | None) -> tuple[str, str, str]:
    """Of a task, or of the only one."""
    score = next((each for each in run.quality if each.c == c and task in (None, task_of(run, each))), None)
    if score is None:
        return NONE, NONE, ""
    value = number(score.mean if score.metric else score.agreement)
    if score.lost is None or score.low is None or score.high is None:
        is_first = c == (0 if score.metric else score.reference)
        return value, ("reference" if c else "baseline") if is_first else NONE, ""
    said = "" if c == len(run.candidates) - 1 else _SAID[score.verdict]
    return value, f"{points(score.lost)} [{points(score.low)},{points(score.high)}]", said


def _value(run: Run, c: int, metric: str) -> float | None:
    found = run.absolute(c, metric, "value")
    return found.value if found else None


def _details(run: Run) -> Iterator[str]:
    """By candidate, the twin left out."""
    for c, mark in enumerate(marks(run)[:-1]):
        stages = [(stage, run.absolute(c, f"{stage}_ms", "mean")) for stage in (*stages_of(run), OTHER)]
        shown = " | ".join(f"{stage} {number(found.value)}" for stage, found in stages if found)
        yield from (
            wrapped(f"{mark:<3} stages, mean ms{' (all tasks)' if _tasks(run) else ''}: ", shown) if shown else ()
        )
        for task in _tasks(run) or ("",):
            label, prefix = (f" ({task})", f"{task}.") if task else ("", "")
            yield from wrapped(f"{mark:<3} answers, ms{label}: ", "  ".join(_percentiles(run, c, f"{prefix}answer_ms")))
        if roofs := [roof for roof in run.roofline if roof.c == c]:
            yield from wrapped(f"{mark:<3} roof: ", ", ".join(map(_roof, roofs)))
        peaks = [(name, _value(run, c, metric)) for name, metric in (("PSS", "peak_pss"), ("VmHWM", "peak_hwm"))]
        if any(size is not None for _, size in peaks):
            yield from wrapped(
                f"{mark:<3} peak, MiB: ", " | ".join(f"{name} {mebibytes(size)}" for name, size in peaks)
            )
        if memory := [row for row in run.memory if row.c == c and row.pss is not None]:
            said = (f"{row.stage} {mebibytes(row.pss)}" for row in memory)
            yield from wrapped(f"{mark:<3} PSS, MiB: ", " | ".join(said))
        yield from _limit(run, c, mark)
        yield from _energy(run, c, mark)
    if not run.energy.method:
        yield from wrapped("energy: ", f"not measurable: {run.energy.reason}")


def _roof(roof: Roof) -> str:
    limit = "GEMM peak" if roof.bound == "compute" else "bandwidth"
    share = f"{roof.share:.0%}" if roof.valid else NONE
    return f"{roof.stage} {share} of {limit}{' in cache' if roof.in_cache else ''}"


def _percentiles(run: Run, c: int, metric: str) -> Iterator[str]:
    for stat in PERCENTILES:
        found = run.absolute(c, metric, stat)
        if found is None or found.high is None:
            yield f"{stat} {NONE}"
        elif found.value is None:
            yield f"{stat} <= {number(found.high)} ({found.note})"
        else:
            yield f"{stat} {number(found.value)} (<= {number(found.high)})"


def _limit(run: Run, c: int, mark: str) -> Iterator[str]:
    own = [limit for limit in run.limits if limit.c == c]
    works, fails = ([limit.bytes for limit in own if limit.works is good] for good in (True, False))
    if own:
        least = f"works with {mebibytes(min(works))} MiB" if works else "works with none that was tried"
        most = f", not with {mebibytes(max(fails))} MiB" if fails else ""
        yield from wrapped(f"{mark:<3} memory limit: ", f"{least}{most} ({own[0].method})")


def _energy(run: Run, c: int, mark: str) -> Iterator[str]:
    rails = ("",) if run.energy.whole else tuple(f":{rail}" for rail in run.energy.rails)
    for rail in rails if run.energy.method else ():
        answer, above = run.absolute(c, f"answer_mj{rail}"), run.absolute(c, f"watts_above_idle{rail}")
        name = rail.removeprefix(":") or run.energy.whole
        yield from wrapped(
            f"{mark:<3} energy ({run.energy.method}, {name}): ",
            f"{middle(answer)} mJ an answer {interval(answer)}, {middle(above)} W above idle",
        )


def _changed(run: Run) -> Iterator[str]:
    """Answers that are not the reference's."""
    first = run.quality[0].reference if run.quality else 0
    texts: dict[tuple[int, int], str] = {}
    for answer in run.answers:
        texts.setdefault((answer.c, answer.input), answer.text)
    for c, mark in enumerate(marks(run)):
        both = [at for at in range(len(run.inputs.items)) if (c, at) in texts and (first, at) in texts]
        changed = [at for at in both if texts[c, at] != texts[first, at]]
        if changed:
            yield f"{mark} answers {len(changed)} of {len(both)} inputs otherwise than {marks(run)[first]}"
        for at in changed[:CHANGED]:
            name = printable(run.inputs.items[at].id)[-40:]
            yield from wrapped(f"    {name}: ", f'"{texts[first, at]}" -> "{texts[c, at]}"')


def _doubts(run: Run) -> Iterator[str]:
    for flag in run.validity.flags:
        yield from wrapped(f"{flag.severity}: ", f"{flag.text}; {flag.advice}" if flag.advice else flag.text)
