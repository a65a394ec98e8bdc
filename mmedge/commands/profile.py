"""``mmedge profile``"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from mmedge.profiling.judging.gate import Outcome
    from mmedge.profiling.judging.rules import Rules
    from mmedge.profiling.profile import Settings
    from mmedge.profiling.run import Candidate, Inputs, Run

WIDTH = 79
"""A terminal of 80 columns would begin a new line after one more."""
INCONCLUSIVE = 9


@Parameter(name="*")
@dataclass(frozen=True)
class Compared:
    """What is compared, and what is asked."""

    backend: str | None = None
    """Engines to run each bundle on, as in onnxruntime,openvino; without it those its target names."""
    precision: str | None = None
    """Only bundles with a component in one of these, as in float32,int8."""
    threads: str = "0"
    """CPU threads of each candidate; several, as in 1,2,4, are candidates of their own. 0 means all cores."""
    inputs: str | None = None
    """Pictures: a folder, a CSV or JSONL list, or synthetic[:640x480,...]; else the bundles' common golden samples."""
    task: str | None = None
    """caption or ask; without it what the golden samples say, or the first that all bundles can do."""
    most: int | None = None
    """At most so many inputs, spread evenly over all."""
    answer_all: bool = False
    """Let every candidate answer every input once, so that quality is judged by all of them."""
    unverified: bool = False
    """Measure bundles whose golden samples fail too, and mark them everywhere."""
    limit: int | None = None
    """Longest answer, in tokens."""


@Parameter(name="*")
@dataclass(frozen=True)
class Measured:
    """How it is measured."""

    budget: str = "120s"
    """Time for the rounds; starting, --cold, --memory-limit, --soak and a --scenario come on top."""
    ci: str = "2%"
    """Stop when every ratio's interval reaches no further than this from its middle."""
    margin: str = "3%"
    """Ratios closer to 1 than this are the same."""
    processes: int = 5
    """Groups of fresh processes at least."""
    rounds: int | None = None
    """So many rounds, instead of a budget."""
    seed: int = 7
    """Of the order in which candidates answer, and of everything else that is drawn."""
    aa: bool = False
    """Only the first candidate against itself: what can this machine resolve? Without a bundle a fixed computation."""
    scenario: str = "single"
    """How requests come: single (one after the other), stream:RATE, offline, server:RATE or server:slo=ttft<500ms."""
    soak: str | None = None
    """Go on for so long, as in 20m, and compare the first minute with the last."""
    cold: bool = False
    """Start each candidate five times more, its files dropped from memory or not, compiled or not."""
    memory_limit: str | None = None
    """Answer under a real limit, as in 900MiB; or auto, to find the smallest that works."""
    roofline: bool = False
    """Measure what this machine can do at most, and tell each stage's share of it."""
    layers: bool = False
    """Profile each candidate's layers, in a run of their own."""
    instructions: bool = False
    """Count the instructions of decoding and pre-processing."""
    gate: Path | None = None
    """Rules, as for `mmedge gate`: measures up to three times the budget while one of them cannot be told."""


@Parameter(name="*")
@dataclass(frozen=True)
class Told:
    """What becomes of it."""

    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None
    """JSON file (or .json.gz) to keep everything in, whole at every moment."""
    html: Path | None = None
    """Write a report too."""
    trace: Path | None = None
    """Write a trace too, for Perfetto or chrome://tracing."""
    csv: Path | None = None
    """Write a row for each answer too."""
    force: bool = False
    """Replace files that are there already."""
    json: bool = False
    """Print everything that was measured as JSON."""


def profile(
    *bundles: Path, compared: Compared = Compared(), measured: Measured = Measured(), told: Told = Told()
) -> int:
    """Compare bundles, engines and threads on this machine: time by stage, memory, start, energy and answers.

    All candidates answer the same inputs in turns, in several groups of fresh processes. The first is what the others
    are compared with, and takes part twice, so that chance shows. A list of inputs has a column image, and may have
    question, answer and caption, by which answers are judged.

    Args:
        bundles: Folders that `mmedge export` wrote.
    """
    import tempfile

    from mmedge.commands.report import check_outputs
    from mmedge.errors import UsageError
    from mmedge.profiling.extras import extras_of
    from mmedge.profiling.profile import profile as measure

    if told.json and any(path.suffix == ".json" for path in bundles):
        raise UsageError("--json prints, and takes no file", hint="-o FILE keeps everything in a file")
    files = {kind: path for kind in ("html", "trace", "csv") if (path := getattr(told, kind))}
    check_outputs(files | ({"output": told.output} if told.output else {}), None, told.force)
    rules = _rules(measured.gate)
    settings = _settings(measured, compared, spans=told.trace is not None)
    extras = extras_of(
        is_cold=measured.cold,
        memory=measured.memory_limit,
        scenario=measured.scenario,
        budget_s=settings.budget_s,
        soak_s=_seconds(measured.soak) if measured.soak else None,
        by_layer=measured.layers,
        roof=measured.roofline,
        counted=measured.instructions,
    )
    with tempfile.TemporaryDirectory(prefix="mmedge-profile-") as folder, ProgressLine() as say:
        candidates, inputs = _subject(bundles, compared, measured.aa, Path(folder))
        undecided = (lambda run: _outcome(run, rules).undecided) if rules else None
        run = measure(candidates, inputs, settings, extras, undecided=undecided, save=told.output, say=say)
        _write(run, files)
    for path in (*files.values(), *([told.output] if told.output else [])):
        print(f"wrote {path}", file=sys.stderr)
    return _show(run, told.json, _outcome(run, rules) if rules else None)


def _subject(
    bundles: tuple[Path, ...], compared: Compared, alone: bool, folder: Path
) -> tuple[list[Candidate], Inputs]:
    """Who is compared, and what is asked."""
    from mmedge.profiling import yardstick
    from mmedge.profiling.candidates import candidates_of
    from mmedge.profiling.inputs import inputs_of

    if alone and not bundles:
        return [yardstick.candidate()], yardstick.inputs(folder)
    candidates = candidates_of(
        bundles,
        _words(compared.backend),
        precisions=_words(compared.precision),
        threads=[_whole(each, "--threads") for each in _words(compared.threads) or ("",)],
    )
    inputs = inputs_of(list(bundles), compared.inputs, compared.task, folder, compared.most)
    return list(candidates[:1] if alone else candidates), inputs


def _settings(measured: Measured, compared: Compared, *, spans: bool) -> Settings:
    from mmedge.profiling.profile import Settings

    return Settings(
        budget_s=_seconds(measured.budget),
        precision=_share(measured.ci, "--ci"),
        margin=_share(measured.margin, "--margin"),
        processes=measured.processes,
        rounds=measured.rounds,
        seed=measured.seed,
        limit=compared.limit,
        answer_all=compared.answer_all,
        scenario=measured.scenario,
        spans=spans,
        unverified=compared.unverified,
    )


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _whole(text: str, option: str) -> int:
    from mmedge.errors import UsageError

    if not text.isdecimal():
        raise UsageError(f"{option} is `{text}`, it must be a number", hint=f"{option} 2, or several: {option} 1,2")
    return int(text)


def _seconds(text: str) -> float:
    """``120s``, ``20m`` or ``1.5h``; a number alone is seconds."""
    import re

    from mmedge.errors import UsageError

    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|min|h|)", text.strip())
    if not found or not float(found[1]):
        raise UsageError(f"`{text}` is no length of time", hint="such as 120s, 20m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[found[2]]


def _share(text: str, option: str) -> float:
    from mmedge.errors import UsageError
    from mmedge.profiling.numbers.quantities import read_quantity

    try:
        return read_quantity(text, "number")
    except ValueError as error:
        raise UsageError(f"{option} is `{text}`, no share", hint=f"such as {option} 2%") from error


def _rules(path: Path | None) -> Rules | None:
    from mmedge.profiling.judging.rules import load_rules

    return load_rules(path) if path else None


def _outcome(run: Run, rules: Rules) -> Outcome:
    from mmedge.profiling.judging.gate import outcome

    unverified = any(candidate.unverified for candidate in run.candidates)
    return outcome(run, rules, unverified=unverified, unpaired=run.protocol.interleave == "blocks")


def _write(run: Run, files: dict[str, Path]) -> None:
    """The report, the trace, the table."""
    from mmedge.commands.report import content
    from mmedge.core.whole_file import write_whole

    for kind, path in files.items():
        write_whole(path, content(kind, run))


def _show(run: Run, json: bool, outcome: Outcome | None) -> int:
    """Print it; returns the exit code."""
    from mmedge.commands.gate import show_outcome
    from mmedge.profiling.keep import encode_run
    from mmedge.profiling.showing.terminal import lines

    if json:
        print(encode_run(run).decode(), end="")
    else:
        print("\n".join(lines(run)))
    if outcome:
        if not json:
            print()
            show_outcome(outcome)
        return outcome.exit_code
    others = [ratio for ratio in run.results.ratios if ratio.metric == "answer_ms"]
    open_ones = [ratio.c for ratio in others if ratio.verdict == "inconclusive"]
    if open_ones or not run.validity.ok:
        print(f"exit {INCONCLUSIVE}: {_why(run, open_ones)}", file=sys.stderr)
        return INCONCLUSIVE
    return 0


def _why(run: Run, inconclusive: list[int]) -> str:
    names = [f"`{run.candidates[c].name}`" for c in inconclusive if c < len(run.candidates) - 1]
    if names:
        return f"how fast {', '.join(names)} is beside the first cannot be told"
    if inconclusive:
        return "the first does not come out as fast as itself: the machine is too busy"
    return "the run is not valid"


class ProgressLine:
    """What is being done, on standard error where that is a terminal: one line that changes and goes at the end."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    def __call__(self, line: str) -> None:
        if self.live:
            print(f"\r{line[:WIDTH]:<{WIDTH}}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            print(f"\r{'':<{WIDTH}}\r", end="", file=sys.stderr, flush=True)
