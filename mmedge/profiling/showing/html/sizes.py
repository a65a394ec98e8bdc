"""What an answer costs by what is asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmedge.profiling.run import Fit, Run
from mmedge.profiling.showing.html.candidates import label_of, legend_label, own, style_of
from mmedge.profiling.showing.html.draw import Canvas, drawn, legend, line_style, panels, point_style, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.measured import NS_PER_MS
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import number

NAME, TITLE = "inputs", "Cost by input"
MOST_POINTS, LEAST_POINTS, MOST_MARKS = 150, 20, 500
"""Inputs that are drawn, as many as make so many marks in a panel for all candidates."""
_WISHED = ("megapixels", "tiles", "prompt_tokens", "audio_s", "bytes", "width", "height")
_PANELS = 4


def figure(run: Run) -> Figure | Absent:
    """Median answer times of single inputs against their features."""
    medians = _medians(run)
    features = _features(run)
    if not medians:
        return Absent(NAME, TITLE, "No round was measured.")
    if not features:
        return Absent(NAME, TITLE, "All inputs are alike: --inputs takes a folder of your own, or synthetic sizes.")
    height = 0.8 + 3.1 * ((len(features) + 1) // 2)
    return Figure(
        NAME,
        TITLE,
        "A point is the median answer to one input, a line the fit through a candidate's points: a slope is a cost "
        "that grows with the input.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, medians, features, canvas), height=height),
        _tables(run, medians, features),
        note=_note(run, medians),
    )


def _medians(run: Run) -> dict[int, dict[int, float]]:
    """Median ms by candidate and input; of many inputs those at equal steps of cost, the dearest always."""
    times: dict[tuple[int, int], list[float]] = {}
    twins = set(range(len(run.candidates))) - set(own(run))
    for sample in run.rounds:
        if sample.c not in twins:
            times.setdefault((sample.c, sample.input), []).append(sample.answer_ns / NS_PER_MS)
    first = {input_: float(np.median(found)) for (c, input_), found in times.items() if c == 0}
    ordered = sorted(first, key=first.__getitem__) or sorted({input_ for _, input_ in times})
    count = min(MOST_POINTS, max(LEAST_POINTS, MOST_MARKS // len(own(run))))
    kept = {ordered[n] for n in np.linspace(0, len(ordered) - 1, count).round().astype(int)} if ordered else set()
    found: dict[int, dict[int, float]] = {}
    for (c, input_), values in sorted(times.items()):
        if input_ in kept:
            found.setdefault(c, {})[input_] = float(np.median(values))
    return found


def _features(run: Run) -> list[str]:
    """Those that differ between inputs."""
    varying = {
        name
        for name in {name for item in run.inputs.items for name in item.features}
        if len({item.features.get(name) for item in run.inputs.items}) > 1
    }
    fitted = [fit.feature for fit in run.results.fits]
    return [name for name in dict.fromkeys([*_WISHED, *fitted, *sorted(varying)]) if name in varying][:_PANELS]


def _draw(run: Run, medians: dict[int, dict[int, float]], features: list[str], canvas: Canvas) -> None:
    plots = panels(canvas, len(features), "answer, ms", sharey=True)
    for axes, feature in zip(plots, features, strict=True):
        for c, found in medians.items():
            _points(axes, run, c, found, feature)
        axes.set_xlabel(feature.replace("_", " "))
        axes.set_ylim(bottom=0)
    legend(canvas, plots[0])


def _points(axes: Any, run: Run, c: int, medians: dict[int, float], feature: str) -> None:
    known = [(run.inputs.items[n].features[feature], ms) for n, ms in medians.items() if _has(run, n, feature)]
    if not known:
        return
    at, ms = np.array(known).T
    style = style_of(run, c)
    (points,) = axes.plot(at, ms, **point_style(style), ms=5, label=legend_label(run, c))
    tell(points, label_of(run, c))
    if fit := _fit(run, c, feature):
        ends = np.array([at.min(), at.max()])
        (line,) = axes.plot(ends, fit.intercept + fit.slope * ends, **line_style(style))
        tell(line, f"{label_of(run, c)}: {number(fit.intercept)} + {number(fit.slope)} x {feature}")


def _has(run: Run, input_: int, feature: str) -> bool:
    return feature in run.inputs.items[input_].features


def _fit(run: Run, c: int, feature: str) -> Fit | None:
    wanted = (c, "answer_ms", feature)
    return next((fit for fit in run.results.fits if (fit.c, fit.metric, fit.feature) == wanted), None)


def _tables(run: Run, medians: dict[int, dict[int, float]], features: list[str]) -> str:
    inputs = sorted({input_ for found in medians.values() for input_ in found})
    heads = ("input", *features, *(f"{label_of(run, c)}, ms" for c in medians))
    points = (_point_row(run, medians, features, n) for n in inputs)
    fit_heads = ("candidate", "measure", "feature", "at 0, ms", "ms per 1", "from", "to", "rank correlation", "inputs")
    worst_heads = ("candidate", "slowest input", "file", "ms", "times its median")
    parts = [table(heads, points)]
    if run.results.fits:
        parts.append("<h3>Fits</h3>" + table(fit_heads, (_fit_row(run, fit) for fit in run.results.fits)))
    if run.results.worst:
        rows: list[list[Cell]] = [
            [label_of(run, w.c), run.inputs.items[w.input].id, run.inputs.items[w.input].file, w.ms, w.times]
            for w in run.results.worst
        ]
        parts.append("<h3>Slowest inputs</h3>" + table(worst_heads, rows))
    return "".join(parts)


def _point_row(run: Run, medians: dict[int, dict[int, float]], features: list[str], n: int) -> list[Cell]:
    item = run.inputs.items[n]
    return [item.id, *(item.features.get(name) for name in features), *(found.get(n) for found in medians.values())]


def _fit_row(run: Run, fit: Fit) -> list[Cell]:
    return [
        label_of(run, fit.c), fit.metric, fit.feature, fit.intercept, fit.slope, fit.low, fit.high, fit.rank, fit.n,
    ]  # fmt: skip


def _note(run: Run, medians: dict[int, dict[int, float]]) -> str:
    shown = len({input_ for found in medians.values() for input_ in found})
    asked = len({sample.input for sample in run.rounds})
    said = f"{shown} of {asked} inputs are drawn, at equal steps of cost. " if shown < asked else ""
    said += f"Points and fits are of all tasks together: {', '.join(run.tasks)}. " if len(run.tasks) > 1 else ""
    if not run.results.fits:
        said += "No fit was made: it takes several inputs that differ. "
    worst = max(run.results.worst, key=lambda each: each.times, default=None)
    if worst:
        item = run.inputs.items[worst.input]
        said += f"Slowest beside its median: {item.id}, {number(worst.times)} times on {label_of(run, worst.c)}."
    return said.strip()
