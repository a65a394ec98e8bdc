"""The ledger of a cold start."""

from __future__ import annotations

from statistics import median
from typing import TypeAlias

from mmedge.profiling.run import Cold, Run
from mmedge.profiling.showing.html.candidates import label_of, own, plot_label
from mmedge.profiling.showing.html.draw import Canvas, beside, drawn, from_zero, legend, lines
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.stages import bar, key
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import number

NAME, TITLE = "cold", "From nothing to the first answer"
_MISSED = ", with nothing compiled"
_PARTS = {
    "process": ("muted", ""),
    "import": ("sky", ""),
    "verify": ("green", "//"),
    "compile": ("purple", "xx"),
    "load": ("blue", ""),
    "answer": ("vermillion", "||"),
}


Kind: TypeAlias = tuple[int, str, bool]
"""Candidate, pages, and whether it had to compile first."""


def figure(run: Run) -> Figure | Absent:
    """Medians of several starts, with the files in memory and without."""
    if not run.cold:
        return Absent(NAME, TITLE, "Starts were not measured: --cold brings them.")
    groups: dict[Kind, list[Cold]] = {}
    for kind, start in sorted(((_kind(start), start) for start in run.cold), key=lambda pair: pair[0]):
        if start.c in own(run):
            groups.setdefault(kind, []).append(start)
    spent = {key: [median(getattr(s, f"{part}_s") for s in found) for part in _PARTS] for key, found in groups.items()}
    return Figure(
        NAME,
        TITLE,
        "From left to right what happens between asking for a process and its first answer; cold means that the "
        "bundle's files had to be read from the disk.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, spent, canvas), height=1.7 + 0.55 * len(spent)),
        table(
            ("candidate", "files", "starts", *(f"{part}, s" for part in _PARTS), "total, s", "from", "to"),
            (_row(run, key, groups[key], parts) for key, parts in spent.items()),
        ),
        note="Medians of each part over the starts, and the shortest and the longest of three or more. "
        + ("With nothing compiled: engines first compile for this machine." if any(key[2] for key in groups) else ""),
    )


def _kind(start: Cold) -> Kind:
    return start.c, start.pages, start.compiled == "miss"


def _row(run: Run, kind: Kind, starts: list[Cold], parts: list[float]) -> list[Cell]:
    c, pages, missed = kind
    known = run.absolute(c, f"{pages}_miss_ms" if missed else f"{pages}_ms")
    ends = (known.low, known.high) if known else (None, None)
    told: list[Cell] = [label_of(run, c), f"{pages}{_MISSED if missed else ''}", len(starts)]
    total = median(start.total_s for start in starts)
    return [*told, *parts, total, *(None if end is None else end / 1e3 for end in ends)]


def _draw(run: Run, spent: dict[Kind, list[float]], canvas: Canvas) -> None:
    axes = canvas.subplots()
    key(axes, _PARTS)
    for place, parts in enumerate(spent.values()):
        left = 0.0
        for (name, look), length in zip(_PARTS.items(), parts, strict=True):
            bar(axes, place, left, length, look, f"{name}: {number(length)} s")
            left += length
        beside(axes, left, place, f"{number(left)} s")
    lines(axes, [f"{plot_label(run, c, 34)}\n{pages}{_MISSED if missed else ''}" for c, pages, missed in spent])
    from_zero(axes, max(sum(parts) for parts in spent.values()))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("median seconds")
    legend(canvas, axes, columns=6)
