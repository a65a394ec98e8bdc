"""``mmedge compare``"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedge.profiling.judging.comparison import Comparison, Difference, Pair, Quality, Side

CHANGED = 5
"""Changed answers that are shown of each pair."""
_ROW = ("{:<17}", "{:>8}", "{:>8}", "{:>7}", "{:>14}", " {}")


def compare(a: Path, b: Path | None = None, /, *, unpaired: bool = False, json: bool = False) -> int:
    """Compare the candidates of one run, or with --unpaired those of two runs that were measured apart: 9 when nothing
    can be told, because all is inconclusive or not valid, or because the machines differ.

    Args:
        a: What `mmedge profile -o` wrote.
        b: The same run, or another; without it the run is compared in itself.
        unpaired: Accept runs that were measured at different times, or on different machines, and label every line.
        json: Print it as JSON.
    """
    import msgspec

    from mmedge.profiling.judging.compare import compare as run
    from mmedge.profiling.keep import read_run

    first = read_run(a)
    found = run(first, read_run(b) if b else first, (str(a), str(b or a)), unpaired=unpaired)
    if json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return found.exit_code
    label = "" if found.paired else "UNPAIRED "
    for line in _lines(found, len(label)):
        print(f"{label}{line}".rstrip())
    return found.exit_code


def _lines(found: Comparison, narrower: int) -> Iterator[str]:
    from mmedge.profiling.showing.terminal_rows import row

    yield from _sides(found, narrower)
    for pair in found.pairs:
        yield ""
        yield from _wrapped("", _title(pair), narrower)
        yield row(_ROW, ("", "A", "B", "B to A", "95 % interval", ""))
        for each in pair.differences:
            yield row(_ROW, _difference(each))
        for score in pair.quality:
            yield row(_ROW, _quality(score, len({each.task for each in pair.quality}) > 1))
        yield f"{len(pair.changed)} of {pair.answered} answers differ"
        for change in pair.changed[:CHANGED]:
            yield from _wrapped(f"  {change.input[-40:]}: ", f'"{change.a}" -> "{change.b}"', narrower)


def _sides(found: Comparison, narrower: int) -> Iterator[str]:
    if found.paired:
        yield from _wrapped("", _side(found.a), narrower)
        yield "one run: A is its baseline; ratios are paired by round, and not the quotient of"
        yield "the medians beside them"
    else:
        yield from _wrapped("A  ", _side(found.a), narrower)
        yield from _wrapped("B  ", _side(found.b), narrower)
        why = "" if found.same_machine else "; there are no verdicts, because the machines differ"
        said = f"two runs, not paired: drift between them looks like a difference; {found.inputs} inputs in common{why}"
        yield from _wrapped("", said, narrower)
        if found.drift:
            yield from _wrapped("", f"a fixed computation took x{found.drift:.3f} as long in B", narrower)
    for side in dict.fromkeys((found.a, found.b)):
        for doubt in side.doubts:
            yield from _wrapped("DOUBTED: ", f"{side.file} is not valid: {doubt}", narrower)
    for name, (one, two) in found.differs.items():
        yield from _wrapped("", f"{name}: {one or 'absent'} -> {two or 'absent'}", narrower)


def _side(side: Side) -> str:
    machine = f"{side.machine} ({side.machine_id[:8] or 'nobody knows which'})"
    return f"{side.file}  {side.started}  mmedge {side.mmedge}  {machine}{'' if side.complete else '  INCOMPLETE'}"


def _title(pair: Pair) -> str:
    marks = "".join(f"  {mark}" for mark in pair.marks if mark != "UNPAIRED")
    how = {"bundle": " (the same bundle and engine)", "only": " (matched as the only ones)"}.get(pair.matched, "")
    return (pair.a if pair.a == pair.b else f"{pair.a} -> {pair.b}") + how + marks


def _difference(each: Difference) -> tuple[str, ...]:
    from mmedge.profiling.numbers.quantities import kind_of, show_quantity
    from mmedge.profiling.showing.terminal_rows import NONE

    kind = kind_of(each.metric)
    ratio = NONE if each.ratio is None else f"x{each.ratio:.3f}"
    interval = "" if each.low is None or each.high is None else f"[{each.low:.3f}-{each.high:.3f}]"
    return each.metric, show_quantity(each.a, kind), show_quantity(each.b, kind), ratio, interval, each.verdict or ""


def _quality(each: Quality, of_several: bool) -> tuple[str, ...]:
    from mmedge.profiling.showing.terminal_rows import NONE, number

    lost = NONE if each.lost is None else f"{each.lost:+.1f}"
    interval = "" if each.low is None or each.high is None else f"[{each.low:+.1f},{each.high:+.1f}]"
    name = f"{each.metric} {each.task}" if of_several else each.metric
    return name, number(each.a), number(each.b), lost, interval, "points lost"


def _wrapped(label: str, text: str, narrower: int) -> list[str]:
    from textwrap import wrap

    from mmedge.profiling.showing.terminal_rows import WIDTH, printable

    indent = " " * min(len(label), WIDTH // 4)
    return wrap(printable(text), WIDTH - narrower, initial_indent=printable(label), subsequent_indent=indent)
