"""The baseline against itself: what chance alone makes here."""

from __future__ import annotations

import numpy as np

from mmedge.profiling.run import Resolution, Run
from mmedge.profiling.showing.html.candidates import twin_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, legend
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import percent

NAME, TITLE = "chance", "The baseline against itself"
_BINS = 40


def figure(run: Run) -> Figure | Absent:
    """Ratios of single rounds, as a histogram around 1."""
    twin, found = twin_of(run), run.results.aa
    ratios = _ratios(run, twin) if twin is not None else np.array([])
    if found is None or not len(ratios):
        return Absent(NAME, TITLE, "The baseline did not take part twice, so that nothing tells what is chance here.")
    low, high = np.quantile(ratios, [0.005, 0.995])
    inside = ratios[(ratios >= low) & (ratios <= high)]
    counts, edges = np.histogram(inside, bins=min(_BINS, max(5, len(inside) // 4)))
    bins: list[list[Cell]] = [
        [float(left), float(right), int(count)] for left, right, count in zip(edges, edges[1:], counts, strict=False)
    ]
    estimate: list[Cell] = ["estimate", found.ratio, found.low, found.high, percent(found.floor), found.verdict]
    return Figure(
        NAME,
        TITLE,
        f"The same candidate under two names: single rounds scatter around 1 as drawn, and all of them together can "
        f"tell differences of {percent(found.floor)} or more.",
        drawn(NAME, TITLE, lambda canvas: _draw(counts, edges, found, canvas), height=3.0),
        table(("", "ratio", "from", "to", "noise floor", "verdict"), [estimate])
        + table(("ratio from", "to", "rounds"), bins),
        note=f"{len(ratios) - len(inside)} of {len(ratios)} rounds lie outside of what is drawn.",
    )


def _ratios(run: Run, twin: int) -> np.ndarray:
    """Of the rounds that both answered."""
    first = {(s.process, s.round): s.answer_ns for s in run.rounds if s.c == 0}
    second = {(s.process, s.round): s.answer_ns for s in run.rounds if s.c == twin}
    return np.array([second[key] / first[key] for key in sorted(first.keys() & second.keys()) if first[key]])


def _draw(counts: np.ndarray, edges: np.ndarray, found: Resolution, canvas: Canvas) -> None:
    axes = canvas.subplots()
    axes.axvspan(1 - found.floor, 1 + found.floor, color=colour("band"), lw=0, label="noise floor")
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=colour("muted"), ec=colour("panel"), lw=0.5)
    axes.axvline(1, color=colour("ink"), lw=1)
    axes.axvspan(
        found.low, found.high, ymin=0, ymax=0.04, color=colour("vermillion"), lw=0, label="95 % interval of all"
    )
    axes.set_xlabel("second by first, one round each")
    axes.set_ylabel("rounds")
    legend(canvas, axes)
