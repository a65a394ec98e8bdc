"""Response times against arrival rate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from mmedge.profiling.run import Load, Run
from mmedge.profiling.showing.html.candidates import label_of, legend_label, style_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, from_zero, legend, line_style, logarithmic, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.measured import NS_PER_MS
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import number

NAME, TITLE = "load", "Under load"
_BOUND = re.compile(r"\s*(\w+)\s*<=?\s*([\d.]+)\s*")
_HEADS = (
    "candidate", "offered, per s", "requests", "median, ms", "p90, ms", "p95, ms", "p99, ms", "most, ms",
    "service median, ms", "answered, per s", "goodput, per s", "objective", "kept",
)  # fmt: skip


def figure(run: Run) -> Figure | Absent:
    """Medians and the highest percentile that the samples bound."""
    known = [(load, times) for place, load in enumerate(run.load) if (times := _response_ms(run, place, load))]
    if not known:
        return Absent(NAME, TITLE, "No load was offered: --scenario server, stream or offline brings one.")
    return Figure(
        NAME,
        TITLE,
        "Solid is the median response at so many arrivals a second, counted from when a request was due, dotted the "
        "highest percentile that enough requests tell; ● marks rates that kept the objective.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, known, canvas), height=4.6),
        table(_HEADS, (_row(run, load, times) for load, times in known)),
        note=f"Objective: {known[0][0].slo}." if known[0][0].slo else "No objective was given.",
    )


def _response_ms(run: Run, place: int, load: Load) -> Mapping[str, float]:
    """As it is told, or the median and most of the samples."""
    if load.response_ms:
        return load.response_ms
    found = [
        (sample.start_ns + sample.answer_ns - sample.due_ns) / NS_PER_MS
        for sample in run.samples
        if sample.phase == "load" and sample.round == place and sample.due_ns is not None
    ]
    return {"median": float(np.median(found)), "max": max(found)} if found else {}


def _tail(times: Mapping[str, float]) -> str:
    return next(stat for stat in ("p99", "p95", "p90", "max", "median") if stat in times)


def _draw(run: Run, known: list[tuple[Load, Mapping[str, float]]], canvas: Canvas) -> None:
    axes = canvas.subplots()
    for c in sorted({load.c for load, _ in known}):
        own = sorted(((load, times) for load, times in known if load.c == c), key=lambda pair: pair[0].rate)
        style, rates = style_of(run, c), [load.rate for load, _ in own]
        medians, tails = ([times[stat(times)] for _, times in own] for stat in (lambda _: "median", _tail))
        (line,) = axes.plot(rates, medians, **line_style(style), label=legend_label(run, c))
        tell(line, label_of(run, c))
        axes.plot(rates, tails, color=colour(style.colour), ls=":", lw=1.5)
        for (load, times), at, median, tail in zip(own, rates, medians, tails, strict=True):
            face = colour(style.colour) if load.held else "none"
            (mark,) = axes.plot([at], [median], marker=style.marker, mfc=face, mec=colour(style.colour))
            tell(mark, f"{label_of(run, c)}, {number(load.rate)} per s: {number(median)} ms")
            axes.plot([at], [tail], marker=style.marker, ms=4, color=colour(style.colour))
            axes.annotate(_tail(times), (at, tail), (5, 3), textcoords="offset points", fontsize=9)
    for bound in _bounds(run):
        axes.axhline(bound, color=colour("ink"), lw=1.2, ls="--", label=f"objective, {number(bound)} ms")
    axes.set_yscale("log")
    logarithmic(axes.yaxis)
    from_zero(axes, max(load.rate for load, _ in known))
    axes.set_xlabel("arrivals per second")
    axes.set_ylabel("response, ms")
    legend(canvas, axes)


def _bounds(run: Run) -> Iterator[float]:
    """Of the whole answer: bounds of the first token are on another scale."""
    parts = {part for load in run.load for part in load.slo.split("+")}
    for found in filter(None, map(_BOUND.fullmatch, sorted(parts))):
        if found[1] in ("answer_ms", "response_ms"):
            yield float(found[2])


def _row(run: Run, load: Load, times: Mapping[str, float]) -> list[Cell]:
    kept = "not known" if load.held is None else "yes" if load.held else "no"
    percentiles = (times.get(stat) for stat in ("median", "p90", "p95", "p99", "max"))
    service, throughput = load.service_ms.get("median"), load.throughput
    head: list[Cell] = [label_of(run, load.c), load.rate or "all at once", load.offered]
    return [*head, *percentiles, service, throughput, load.goodput, load.slo, kept if load.slo else ""]
