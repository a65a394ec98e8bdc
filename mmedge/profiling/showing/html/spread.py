"""How answer times are distributed, and how sure the percentiles are."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mmedge.profiling.run import Absolute, Run
from mmedge.profiling.showing.html.candidates import label_of, legend_label, own, style_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, legend, line_style, logarithmic, panels, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.measured import answer_ms, rounds_of
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.tasks import heads_of, measure_of, names_of, tasks_of
from mmedge.profiling.showing.html.text import UNKNOWN, number, short
from mmedge.profiling.showing.html.thin import STEPS, steps

NAME, TITLE = "spread", "Distribution of answer times"
PERCENTILES = {"p90": 0.90, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
_DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Times: TypeAlias = dict[tuple[int, str], np.ndarray]
"""Milliseconds of each answer, by candidate and task."""


def figure(run: Run) -> Figure | Absent:
    """Empirical distribution functions."""
    times = {(c, task): answer_ms(rounds_of(run, c, task)) for task in tasks_of(run) for c in own(run)}
    times = {asked: found for asked, found in times.items() if len(found)}
    if not times:
        return Absent(NAME, TITLE, "No round was measured.")
    heads = (*heads_of(run), "answers", "least", *(f"{share:.0%}" for share in _DECILES), "most", *PERCENTILES)
    return Figure(
        NAME,
        TITLE,
        "A point says which share of the answers took no longer than so many milliseconds: steep is steady, a long top "
        "is a long tail.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, times, canvas), height=0.6 + 4.0 * -(-len(tasks_of(run)) // 2)),
        table(heads, (_row(run, *asked, found) for asked, found in times.items())),
        note=_note(max(map(len, times.values()))),
    )


def _draw(run: Run, times: Times, canvas: Canvas) -> None:
    tasks = [task for task in tasks_of(run) if any(task == named for _, named in times)]
    plots = panels(canvas, len(tasks), "share of answers", sharey=True)
    for axes, task in zip(plots, tasks, strict=True):
        _panel(axes, run, task, {c: found for (c, named), found in times.items() if named == task})
        axes.set_title(short(task))
    legend(canvas, plots[0])


def _panel(axes: Any, run: Run, task: str, times: dict[int, np.ndarray]) -> None:
    for c, found in times.items():
        values, shares = steps(found)
        (line,) = axes.step(values, shares, where="post", label=legend_label(run, c), **line_style(style_of(run, c)))
        tell(line, label_of(run, c))
        for stat, share in PERCENTILES.items():
            _bound(axes, run, c, share, measure_of(run, c, task, "answer_ms", stat))
    everything = np.concatenate(list(times.values()))
    if everything.max() > 10 * max(everything.min(), 1e-9):
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("answer, ms")


def _bound(axes: Any, run: Run, c: int, share: float, found: Absolute | None) -> None:
    """From the percentile, where it is known, to its upper bound."""
    if found is None or found.high is None or not found.valid:
        return
    begin = found.high if found.value is None else found.value
    style = colour(style_of(run, c).colour)
    (line,) = axes.plot([begin, found.high], [share, share], color=style, lw=1, marker=4, ms=7, markevery=[1])
    tell(line, f"{label_of(run, c)}: {found.stat} {_percentile(found)} ms")


def _percentile(found: Absolute | None) -> str:
    """Never a number that too few samples would make up."""
    if found is None or (found.value is None and found.high is None):
        return UNKNOWN
    bound = f"≤ {number(found.high)}" if found.high is not None else ""
    said = bound if found.value is None else f"{number(found.value)} {bound and f'({bound})'}".strip()
    return said if found.valid else f"{said} ({found.note or 'less sure'})"


def _row(run: Run, c: int, task: str, times: np.ndarray) -> list[Cell]:
    deciles = np.quantile(times, _DECILES, method="inverted_cdf")
    percentiles = (_percentile(measure_of(run, c, task, "answer_ms", stat)) for stat in PERCENTILES)
    named: list[Cell] = [*names_of(run, c, task), len(times)]
    return [*named, float(times.min()), *map(float, deciles), float(times.max()), *percentiles]


def _note(most: int) -> str:
    said = "Ticks at 90, 95, 99 and 99.9 %: the upper bound of that percentile with 99 % confidence, where there are "
    said += "enough answers for one. The table gives times in ms, and bounds that are less sure with their confidence."
    return said + (f" Of {most:,} answers {STEPS} steps are drawn." if most > STEPS else "")
