"""What was compared, where, how, with which result, and what to doubt."""

from __future__ import annotations

from collections.abc import Iterator

from mmedge.profiling.run import Candidate, Machine, Protocol, Run, Score
from mmedge.profiling.showing.html.candidates import label_of, marks_of, own
from mmedge.profiling.showing.html.figures import badges
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.tasks import heads_of, measure_of, names_of, reference_of, score_of, tasks_of
from mmedge.profiling.showing.html.text import UNKNOWN, escape, interval, mib, number, percent

_HEADS = (
    "answer, ms [95 %]", "by the baseline", "first token, ms", "tokens/s", "peak PSS, MiB",
    "bundle, MiB", "quality", "points lost",
)  # fmt: skip
_SIGNS = {"error": "✖", "warning": "▲", "note": "●"}


def header_of(run: Run) -> str:
    """The top of the page."""
    tasks = " and ".join(run.tasks) or "nothing"
    marks = badges(marks_of(run))
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in verdicts(run))
    return (
        f"<header><h1>{escape(tasks)}: {len(own(run))} candidates{marks}</h1>"
        f'<ul class="verdict">{said}</ul>{_flags(run)}</header>'
        f'<section id="summary"><h2>Summary{marks}</h2>{_summary(run)}</section>'
        f'<section id="made"><h2>What, where and how</h2><dl class="facts">{"".join(_facts(run))}</dl></section>'
    )


def verdicts(run: Run) -> Iterator[str]:
    """The result in sentences, with every mark that belongs to it."""
    for mark in marks_of(run):
        yield f"This is an {mark}."
    compared = [c for c in own(run) if c and run.ratio(c)]
    for c in compared:
        yield _sentence(run, c)
    if not compared:
        times = " and ".join(_took(run, task) for task in tasks_of(run))
        yield f"{label_of(run, 0)} takes {times}; nothing was compared with it."
    if run.results.aa:
        yield f"The baseline beside itself may seem {percent(run.results.aa.floor)} off: less means nothing."


def _sentence(run: Run, c: int) -> str:
    ratio = run.ratio(c)
    assert ratio is not None
    ends = f"{number(ratio.ratio)} {interval(ratio.low, ratio.high)}"
    said = f"{label_of(run, c)} takes {ends} times as long as {label_of(run, ratio.base)}: {ratio.verdict}"
    return f"{said}{''.join(_quality(run, c, task) for task in tasks_of(run))}."


def _took(run: Run, task: str) -> str:
    found = measure_of(run, 0, task, "answer_ms")
    said = f"{number(found.value)} ms {interval(found.low, found.high)}".rstrip() if found else "an unknown time"
    return f"{said} for an answer{f' ({task})' if task else ''}"


def _quality(run: Run, c: int, task: str) -> str:
    score = score_of(run, c, task)
    if score is None or score.lost is None:
        return ""
    what = "quality" if score.metric else f"agreement with {label_of(run, score.reference)}"
    said = f", and loses {number(score.lost)} points {interval(score.low, score.high)} of {what}"
    return f"{said}{f' ({task})' if task else ''}{f': {score.verdict}' if score.verdict else ''}"


def _flags(run: Run) -> str:
    if not run.validity.flags:
        return "" if run.validity.ok else '<p class="flag error">✖ These numbers are not valid.</p>'
    lines = (
        f'<li class="flag {flag.severity}"><span aria-hidden="true">{_SIGNS[flag.severity]}</span> '
        f"<b>{escape(flag.severity)}</b> {escape(flag.text)}{escape(f': {flag.advice}' if flag.advice else '')} "
        f"<code>{escape(flag.code)}</code></li>"
        for flag in run.validity.flags
    )
    return f'<ul class="flags">{"".join(lines)}</ul>'


def _summary(run: Run) -> str:
    """One line a candidate; of several tasks one more for each, as no answer takes what lies between them."""
    tasks = tasks_of(run)
    rows: list[list[Cell]] = []
    for c in own(run):
        if len(tasks) == 1:
            rows.append([label_of(run, c), *_answer(run, c, ""), *_ratio(run, c), *_pace(run, c, ""), *_size(run, c)])
            rows[-1] += _worth(run, c, "")
            continue
        rows.append([label_of(run, c), "all", "", *_ratio(run, c), "", "", *_size(run, c), "", ""])
        for task in tasks:
            own_ = [*names_of(run, c, task), *_answer(run, c, task), "", *_pace(run, c, task), "", ""]
            rows.append([*own_, *_worth(run, c, task)])
    judged = "" if all(each.metric for each in run.quality) else _reference(run)
    return table((*heads_of(run), *_HEADS), rows) + judged


def _reference(run: Run) -> str:
    name = escape(label_of(run, reference_of(run)))
    return f'<p class="note">Where no right answers are known, quality is the share of answers equal to {name}.</p>'


def _answer(run: Run, c: int, task: str) -> list[Cell]:
    time = measure_of(run, c, task, "answer_ms")
    return [f"{number(time.value)} {interval(time.low, time.high)}" if time else UNKNOWN]


def _ratio(run: Run, c: int) -> list[Cell]:
    """By the baseline in the same round, whatever was asked in it."""
    ratio = run.ratio(c)
    if ratio is None:
        return ["baseline" if c == 0 else UNKNOWN]
    return [f"x{number(ratio.ratio)} {interval(ratio.low, ratio.high)} {ratio.verdict}"]


def _pace(run: Run, c: int, task: str) -> list[Cell]:
    found = (measure_of(run, c, task, metric) for metric in ("ttft_ms", "tokens_per_s"))
    return [each.value if each else None for each in found]


def _size(run: Run, c: int) -> list[Cell]:
    found = (run.absolute(c, metric, "value") for metric in ("peak_pss", "bundle_bytes"))
    return [mib(each.value) if each else None for each in found]


def _worth(run: Run, c: int, task: str) -> list[Cell]:
    score = score_of(run, c, task)
    return [_score(score), _lost(score)]


def _score(score: Score | None) -> str:
    if score is None:
        return UNKNOWN
    if score.mean is not None:
        return f"{number(score.mean)} {score.metric}"
    if score.c == score.reference:
        return "reference"
    return UNKNOWN if score.agreement is None else f"{percent(score.agreement)} equal"


def _lost(score: Score | None) -> str:
    if score is None or score.lost is None:
        return UNKNOWN
    return f"{number(score.lost)} {interval(score.low, score.high)} {score.verdict or ''}".strip()


def _facts(run: Run) -> Iterator[str]:
    facts = {
        "machine": _machine(run.machine),
        "protocol": _protocol(run.protocol),
        "inputs": f"{len(run.inputs.items)} from {run.inputs.source}, digest {run.inputs.digest[:12]}",
        "energy": _energy(run),
        "instructions": _instructions(run),
        "software": ", ".join(f"{name} {version}" for name, version in run.software.items()),
        "made with": f"mmedge {run.mmedge.version} (commit {run.mmedge.commit or 'unknown'}), {run.started}",
        "command": " ".join(run.argv),
        **{key: str(value) for key, value in run.notes.items()},
    }
    for name, said in ((name, said) for name, said in facts.items() if said):
        yield f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>"
    for c, candidate in enumerate(run.candidates):
        yield f"<dt>{escape(label_of(run, c))}</dt><dd>{escape(_candidate(candidate))}</dd>"


def _candidate(candidate: Candidate) -> str:
    parts = [f"{part} {candidate.precisions.get(part, '')} on {engine}" for part, engine in candidate.engines.items()]
    cache = f", compiled: {candidate.engine_cache}" if candidate.engine_cache else ""
    threads = candidate.threads or "all"
    return f"{', '.join(parts) or candidate.precision}, {threads} threads, digest {candidate.digest[:12]}{cache}"


def _machine(machine: Machine) -> str:
    processor = machine.processor
    parts = [
        f"{machine.name}: {processor.model} ({processor.arch}), {processor.cores} cores",
        f"{number(mib(machine.memory))} MiB memory",
        f"{machine.system}, Linux {machine.kernel}",
        f"in {machine.container}" if machine.container else "",
        f"virtual ({machine.virtual})" if machine.virtual else "",
        "on battery" if machine.on_battery else "",
        f"governor {', '.join(processor.governors)}" if processor.governors else "",
        *machine.gpus,
        f"id {machine.id[:12] or 'unknown'}",
    ]
    return ", ".join(filter(None, parts))


def _protocol(protocol: Protocol) -> str:
    blocks = "in blocks (they do not fit into memory together)"
    order = "interleaved in rounds" if protocol.interleave == "rounds" else blocks
    return (
        f"{protocol.scenario}, {order}: {protocol.rounds} rounds in {protocol.processes} groups of fresh processes, "
        f"margin {percent(protocol.margin)}, stopped by {protocol.stop_reason or 'nothing'} "
        f"(wanted ±{percent(protocol.precision)} within {number(protocol.budget_s)} s), seed {protocol.seed}"
    )


def _instructions(run: Run) -> str:
    told = (
        f"{label_of(run, each.c)} {number(each.per_input)} per input ({each.method or each.reason})"
        for each in run.instructions
    )
    return "; ".join(told)


def _energy(run: Run) -> str:
    if run.energy.method is None:
        return f"not measurable: {run.energy.reason or 'no reason is known'}"
    tasks = " of any task" if len(run.tasks) > 1 else ""
    suffixes = {"": ""} if run.energy.whole else {f":{rail}": f" ({rail})" for rail in run.energy.rails}
    said = "; ".join(
        f"{label_of(run, c)} {number(found.value)} mJ an answer{tasks}{rail}"
        for c in own(run)
        for suffix, rail in suffixes.items()
        if (found := run.absolute(c, f"answer_mj{suffix}"))
    )
    return f"{run.energy.method} ({', '.join(run.energy.rails)}){': ' if said else ''}{said}"
