"""The forest plot: every candidate's time by the baseline's, with what is chance and what does not matter."""

from __future__ import annotations

import math
from typing import Any

from mmedge.profiling.run import Ratio, Run
from mmedge.profiling.showing.html.candidates import label_of, plot_label, style_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, lines, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import interval, number, percent

NAME, TITLE = "ratios", "Speed beside the baseline"
MOST, ROOM = 36, 12
_DRAWN = ("answer_ms", "ttft_ms", "tpot_ms")
_TICKS = (1.05, 1.1, 1.2, 1.5, 2, 2.5, 3, 5, 10, 20, 50, 100, 1000)
_MARKERS = {"faster": "<", "slower": ">", "same": "s", "inconclusive": "o"}
_HEADS = ("candidate", "measure", "ratio", "from", "to", "verdict", "p (Holm)", "clean rounds only", "rounds")


def figure(run: Run) -> Figure | Absent:
    """Intervals of ratios on a logarithmic axis."""
    found = sorted(run.results.ratios, key=lambda ratio: ratio.metric != "answer_ms")
    if not found:
        return Absent(
            NAME, TITLE, "No ratios were made: it takes two candidates and answers of both in several rounds."
        )
    shown = _shown(found)
    return Figure(
        NAME,
        TITLE,
        f"Each line is the 95 % interval of a candidate's time by that of {label_of(run, found[0].base)} in the same "
        "round: left of 1 is faster, and a line that leaves the band is a difference that matters.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, shown, canvas), height=1.4 + 0.46 * len(shown)),
        table(_HEADS, (_row(run, ratio) for ratio in found)),
        note=_note(run, len(found) - len(shown)),
    )


def _shown(found: list[Ratio]) -> list[Ratio]:
    """Whole answers, and what tokens take where there is room; rates would turn the axis round."""
    times = [ratio for metric in _DRAWN for ratio in found if ratio.metric == metric]
    whole = [ratio for ratio in times if ratio.metric == _DRAWN[0]]
    return times if 0 < len(times) <= ROOM else (whole or found)[:MOST]


def _draw(run: Run, ratios: list[Ratio], canvas: Canvas) -> None:
    axes = canvas.subplots()
    axes.axvspan(1 - run.protocol.margin, 1 + run.protocol.margin, color=colour("band"), lw=0)
    axes.axvline(1, color=colour("muted"), lw=1)
    if run.results.aa:
        for side in (-1, 1):
            axes.axvline(1 + side * run.results.aa.floor, color=colour("ink"), lw=1, ls=":")
    for place, ratio in enumerate(ratios):
        _interval(axes, run, place, ratio)
    axes.set_xscale("log")
    _ticks(axes, [end for ratio in ratios for end in (ratio.low, ratio.high)])
    lines(axes, [plot_label(run, ratio.c, 34) + _metric(ratio) for ratio in ratios])
    axes.set_xlabel("ratio to the baseline (logarithmic)")


def _interval(axes: Any, run: Run, place: int, ratio: Ratio) -> None:
    style = style_of(run, ratio.c)
    face = "none" if ratio.verdict == "inconclusive" else colour(style.colour)
    (line,) = axes.plot([ratio.low, ratio.high], [place, place], color=colour(style.colour), lw=2.5, marker="|", ms=9)
    tell(line, f"{label_of(run, ratio.c)}: {number(ratio.ratio)} {interval(ratio.low, ratio.high)}, {ratio.verdict}")
    axes.plot([ratio.ratio], [place], marker=_MARKERS[ratio.verdict], ms=9, mfc=face, mec=colour(style.colour))
    if ratio.clean is not None:
        axes.plot([ratio.clean], [place + 0.25], marker="x", ms=4, color=colour("muted"))


def _ticks(axes: Any, ends: list[float]) -> None:
    """Plain numbers, as many as fit, beginning with 1."""
    low, high = max(min([*ends, 0.95]), 1e-3) / 1.02, min(max([*ends, 1.05]), 1e3) * 1.02
    axes.set_xlim(low, high)
    room = math.log(high / low) / 14
    ticks = [1.0]
    for tick in _TICKS:
        for side in (tick, 1 / tick if tick > 1.25 else 2 - tick):
            if low <= side <= high and min(abs(math.log(side / other)) for other in ticks) >= room:
                ticks.append(side)
    axes.set_xticks(sorted(ticks), [f"{tick:.3g}" for tick in sorted(ticks)])
    axes.minorticks_off()


def _metric(ratio: Ratio) -> str:
    return "" if ratio.metric == "answer_ms" else f", {ratio.metric.removesuffix('_ms').replace('_', ' ')}"


def _row(run: Run, ratio: Ratio) -> list[Cell]:
    name = label_of(run, ratio.c)
    return [name, ratio.metric, ratio.ratio, ratio.low, ratio.high, ratio.verdict, ratio.p, ratio.clean, ratio.n]


def _note(run: Run, left_out: int) -> str:
    said = f"Band: ±{percent(run.protocol.margin)}, which counts as the same."
    if run.results.aa:
        said += f" Dotted: ±{percent(run.results.aa.floor)}, the smallest difference that this run can see."
    said += (
        " Markers: ◀ faster, ▶ slower, ■ same, ○ inconclusive; the small cross is the ratio over rounds without flags."
    )
    return said + (f" {left_out} more ratios, of tokens and stages, are in the table alone." if left_out else "")
