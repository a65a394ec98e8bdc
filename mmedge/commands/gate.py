"""``mmedge gate``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedge.profiling.judging.changes import Series
    from mmedge.profiling.judging.gate import Finding, Outcome
    from mmedge.profiling.judging.history import History
    from mmedge.profiling.run import Run

_RULE = ("{:>2}", "{:<21}", "{:>9}", "{:>19}", "{:>11}", " {}")
_HISTORY = ("   {:<21}", "{:>4}", "{:>9}", "{:>9}", " {}")


def gate(
    run: Path,
    /,
    *,
    rules: Path,
    baseline: Path | None = None,
    history: Path | None = None,
    unverified: bool = False,
    unpaired: bool = False,
    json: bool = False,
) -> int:
    """Judge a run by rules: 0 when all hold, 7 for worse answers, 8 for slower or larger, 9 when it cannot be told.

    Args:
        run: What `mmedge profile -o` wrote.
        rules: A TOML file with one [[rule]] for each bound.
        baseline: An earlier run to compare with instead of the baseline inside; needs --unpaired, since what drifted
            between the two looks like a difference.
        history: File to append this run's numbers to, one line of JSON each.
        unverified: Accept candidates whose golden samples fail or were not asked.
        unpaired: Accept candidates that were not measured in turns, but in blocks or in different runs.
        json: Print what came of every rule as JSON.
    """
    from mmedge.profiling.judging.compare import compare
    from mmedge.profiling.judging.gate import outcome
    from mmedge.profiling.judging.history import append, entry_of
    from mmedge.profiling.judging.rules import load_rules
    from mmedge.profiling.keep import read_run

    measured = read_run(run)
    asked, against = load_rules(rules), None
    if baseline:
        against = compare(read_run(baseline), measured, (str(baseline), str(run)), unpaired=unpaired)
    found = outcome(measured, asked, against=against, unverified=unverified, unpaired=unpaired)
    kept = append(entry_of(measured, found), history) if history else None
    if json:
        _print_json(found)
    else:
        show_outcome(found)
        if kept and history:
            _show_history(kept, measured, history)
    return found.exit_code


def _print_json(found: Outcome) -> None:
    import msgspec

    fields = {"exit_code": found.exit_code, **msgspec.to_builtins(found)}
    print(msgspec.json.format(msgspec.json.encode(fields)).decode())


def show_outcome(found: Outcome) -> None:
    """Print every rule, and what came of them all."""
    from mmedge.profiling.showing.terminal_rows import printable, row, wrapped

    for mark in found.marks:
        print(mark)
    for doubt in found.doubts:
        print("\n".join(wrapped("DOUBTED: ", doubt)))
    for name in dict.fromkeys(each.candidate for each in found.findings):
        own = [each for each in found.findings if each.candidate == name]
        print(printable(name))
        for each in own:
            print(row(_RULE, (str(each.rule), _metric(each), *_numbers(each), _word(each))))
            if each.reason:
                print("\n".join(wrapped("    ", each.reason + ("" if each.fails else "; this only warns"))))
    print(_summary(found))


def _metric(each: Finding | Series) -> str:
    stat = {"ratio_median": "ratio", "value": "", "lost": "lost"}.get(each.stat, each.stat)
    return f"{each.metric} {stat}".rstrip()


def _numbers(finding: Finding) -> tuple[str, str, str]:
    from mmedge.profiling.numbers.quantities import show_interval, show_quantity

    bounds = [
        f"{sign} {show_quantity(bound, finding.kind)}"
        for sign, bound in ((">=", finding.at_least), ("<=", finding.at_most))
        if bound is not None
    ]
    interval = "" if finding.low == finding.high else show_interval(finding.low, finding.high, finding.kind)
    return show_quantity(finding.value, finding.kind), interval, ", ".join(bounds)


def _word(finding: Finding) -> str:
    return "BROKEN" if finding.outcome == "broken" else finding.outcome


def _summary(found: Outcome) -> str:
    counts = [sum(each.outcome == word for each in found.findings) for word in ("holds", "broken", "inconclusive")]
    said = "{} hold, {} broken, {} inconclusive".format(*counts)
    if found.doubts:
        return f"inconclusive (exit {found.exit_code}): {said}, but the run itself is in doubt"
    if found.exit_code == 0:
        return f"passed: {said}"
    meaning = {7: "failed: answers are worse", 8: "failed: slower or larger", 9: "inconclusive"}[found.exit_code]
    longer = "\nmeasure longer: `mmedge profile --gate` does by itself" if found.undecided else ""
    return f"{meaning} (exit {found.exit_code}): {said}{longer if found.exit_code == 9 else ''}"


def _show_history(kept: History, run: Run, path: Path) -> None:
    """Each series of this machine and where its level changed; for information, whatever that says."""
    from mmedge.errors import BackendError
    from mmedge.profiling.judging.changes import FEWEST, changes_in, series_of
    from mmedge.profiling.showing.terminal_rows import printable, row

    lost = f"; {kept.lost} lines are lost, their writers were killed" if kept.lost else ""
    if not run.machine.id:
        print(f"\nno history of this machine in {path}: nothing identifies it, so that its runs are no series{lost}")
        return
    print(f"\nhistory of this machine in {path}, for information{lost}")
    print(row(_HISTORY, ("", "runs", "first", "last", "changed")))
    name, missing = "", ""
    for series in series_of(kept.entries, run.machine.id):
        try:
            changes = changes_in(series.values)
        except BackendError as error:
            changes, missing = (), f"changes are not looked for: {error.message} ({error.hint})"
        if series.candidate != name:
            print(printable(name := series.candidate))
        said = [f"{series.dates[each.at][:10]} {series.commits[each.at] or ''} x{each.ratio:.2f}" for each in changes]
        print(printable(row(_HISTORY, (*_ends(series), ", ".join(said)))))
    print(missing or f"changes are told from {FEWEST} runs on")


def _ends(series: Series) -> tuple[str, str, str, str]:
    from mmedge.profiling.numbers.quantities import kind_of, show_quantity

    kind = "number" if series.stat in ("ratio_median", "lost") else kind_of(series.metric)
    first, last = (show_quantity(series.values[at] if series.values else None, kind) for at in (0, -1))
    return _metric(series), str(len(series.values)), first, last
