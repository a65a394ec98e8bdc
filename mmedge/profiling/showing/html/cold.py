"""The ledger of a cold start."""

from __future__ import annotations

from statistics import median

from mmedge.profiling.run import Cold, Run
from mmedge.profiling.showing.html.candidates import label_of, own, plot_label
from mmedge.profiling.showing.html.draw import Canvas, beside, drawn, from_zero, legend
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.stages import bar, key
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import number

NAME, TITLE = "cold", "From nothing to the first answer"
_PARTS = {
    "process": ("muted", ""),
    "import": ("sky", ""),
    "verify": ("green", "//"),
    "compile": ("purple", "xx"),
    "load": ("blue", ""),
    "answer": ("vermillion", "||"),
}


def figure(run: Run) -> Figure | Absent:
    """Medians of several starts, with the files in memory and without."""
    if not run.cold:
        return Absent(NAME, TITLE, "Starts were not measured: --cold brings them.")
    groups: dict[tuple[int, str, str], list[Cold]] = {}
    for start in sorted(run.cold, key=lambda start: (start.c, start.pages, start.compiled)):
        if start.c not in own(run):
            continue
        groups.setdefault((start.c, start.pages, start.compiled), []).append(start)
    spent = {key: [median(getattr(s, f"{part}_s") for s in found) for part in _PARTS] for key, found in groups.items()}
    return Figure(
        NAME,
        TITLE,
        "From left to right what happens between asking for a process and its first answer; cold means that the "
        "bundle's files had to be read from the disk.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, spent, canvas), height=1.7 + 0.55 * len(spent)),
        table(
            ("candidate", "files", "compiled", "starts", *(f"{part}, s" for part in _PARTS), "total, s"),
            (_row(run, groups[key], parts) for key, parts in spent.items()),
        ),
        note="Medians of each part over the starts; `compiled`: whether what this machine compiled was there (hit).",
    )


def _row(run: Run, starts: list[Cold], parts: list[float]) -> list[Cell]:
    first = starts[0]
    told: list[Cell] = [label_of(run, first.c), first.pages, first.compiled, len(starts)]
    return [*told, *parts, median(start.total_s for start in starts)]


def _draw(run: Run, spent: dict[tuple[int, str, str], list[float]], canvas: Canvas) -> None:
    axes = canvas.subplots()
    key(axes, _PARTS)
    for place, parts in enumerate(spent.values()):
        left = 0.0
        for (name, look), length in zip(_PARTS.items(), parts, strict=True):
            bar(axes, place, left, length, look, f"{name}: {number(length)} s")
            left += length
        beside(axes, left, place, f"{number(left)} s")
    names = [f"{plot_label(run, c, 34)}\n{pages}, compiled: {compiled}" for c, pages, compiled in spent]
    axes.set_yticks(range(len(spent)), names)
    axes.set_ylim(len(spent) - 0.4, -0.6)
    from_zero(axes, max(sum(parts) for parts in spent.values()))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("median seconds")
    legend(canvas, axes, columns=6)
