"""Where the time of an answer goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmedge.profiling.run import OTHER, STAGES, Run
from mmedge.profiling.showing.html.candidates import own
from mmedge.profiling.showing.html.draw import Canvas, beside, colour, drawn, from_zero, legend, lines, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.measured import rounds_of, stages_ms
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.tasks import heads_of, names_of, plot_name, tasks_of
from mmedge.profiling.showing.html.text import number, percent

NAME, TITLE = "stages", "Where the time goes"
LOOKS = {
    "read": ("muted", ""),
    "decode": ("sky", ""),
    "preprocess": ("sky", "//"),
    "encode": ("blue", ""),
    "project": ("blue", "\\\\"),
    "prefill": ("orange", ""),
    "decode_loop": ("vermillion", "||"),
    "detokenise": ("purple", ""),
    "search": ("green", ""),
    "post": ("green", "xx"),
    OTHER: ("faint", "--"),
}
"""Colour and pattern of a stage, the same in every plot."""


def figure(run: Run) -> Figure | Absent:
    """Stages end to end, from encoded bytes to text."""
    spent = {
        (c, task): found for c in own(run) for task in tasks_of(run) if (found := stages_ms(rounds_of(run, c, task)))
    }
    if not spent:
        return Absent(NAME, TITLE, "No round was measured.")
    names = [stage for stage in (*STAGES, OTHER) if any(stage in found for found in spent.values())]
    return Figure(
        NAME,
        TITLE,
        "From left to right what happens to an answer, from the bytes of the file to the text; lengths are mean "
        "milliseconds, so that they add up to the mean answer.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, spent, names, canvas), height=1.7 + 0.62 * len(spent)),
        table(
            (*heads_of(run), *(f"{stage}, ms" for stage in names), "sum, ms", "other, %"),
            (_row(names_of(run, *asked), found, names) for asked, found in spent.items()),
        ),
        note="`other` is what no stage accounts for.",
    )


def bar(axes: Any, place: int, left: float, length: float, look: tuple[str, str], label: str) -> None:
    """A part of a stacked bar."""
    face, pattern = look
    (patch,) = axes.barh(
        [place], [length], left=left, height=0.62, color=colour(face), hatch=pattern, ec=colour("panel"), lw=0.8
    )
    tell(patch, label)


def key(axes: Any, looks: Mapping[str, tuple[str, str]]) -> None:
    """Say what colours and patterns mean."""
    for name, (face, pattern) in looks.items():
        axes.barh([0], [0], color=colour(face), hatch=pattern, ec=colour("panel"), label=name.replace("_", " "))


def _draw(run: Run, spent: Mapping[tuple[int, str], Mapping[str, float]], names: list[str], canvas: Canvas) -> None:
    axes = canvas.subplots()
    key(axes, {name: LOOKS.get(name, ("yellow", "")) for name in names})
    for place, found in enumerate(spent.values()):
        left = 0.0
        for stage in names:
            length = max(found.get(stage, 0.0), 0.0)
            bar(axes, place, left, length, LOOKS.get(stage, ("yellow", "")), f"{stage}: {number(length)} ms")
            left += length
        beside(axes, left, place, f"{number(left)} ms")
    lines(axes, [plot_name(run, *asked) for asked in spent])
    from_zero(axes, max(sum(found.values()) for found in spent.values()))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("mean ms")
    legend(canvas, axes, columns=6)


def _row(told: list[str], found: Mapping[str, float], names: list[str]) -> list[Cell]:
    whole = sum(found.values())
    return [
        *told,
        *(found.get(stage) for stage in names),
        whole,
        percent(found[OTHER] / whole if whole else None),
    ]
