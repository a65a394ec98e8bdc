"""What the machine could do, and what stages and layers make of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from mmedge.profiling.run import Peaks, Roof, Run
from mmedge.profiling.showing.html.candidates import label_of, legend_label, style_of
from mmedge.profiling.showing.html.draw import Axes, Canvas, colour, drawn, legend, logarithmic, point_style, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import UNKNOWN, percent, short

NAME, TITLE = "roofline", "Roofline"
REST = " rest"
"""Ends the peaks of what a graph with quantized weights computes otherwise: numbers of the table."""
MOST_LAYERS, LEAST_SHARE = 400, 0.005
_ROOFS = ("-", "--", "-.", ":")
_TOGETHER = 0.4
"""Powers of ten."""
_HEADS = (
    "candidate", "stage", "10⁹ FLOP", "10⁶ bytes", "FLOP/byte", "10⁹ FLOP/s", "at best, ms", "measured, ms",
    "of the roof", "bound by", "input", "answers",
)  # fmt: skip


class Limit(Struct, frozen=True):
    """A roof: what no point of its threads can be above."""

    name: str
    gemm: float
    bandwidth: float
    threads: int


class Spot(Struct, frozen=True):
    """FLOP per byte against 10^9 FLOP per second."""

    c: int
    name: str
    intensity: float
    speed: float


def figure(run: Run) -> Figure | Absent:
    """Speed against arithmetic intensity."""
    if run.peaks is None:
        return Absent(NAME, TITLE, "The peaks of this machine were not measured: --roofline brings them.")
    peaks, layers = (run.peaks, *run.peaks.others), list(_layers(run))[:MOST_LAYERS]
    limits = [limit for each in peaks for limit in _limits(each)]
    stages = [
        Spot(roof.c, roof.stage, roof.flops / roof.bytes, roof.flops / roof.measured_ms / 1e6)
        for roof in run.roofline
        if roof.valid and roof.flops > 0 and roof.bytes > 0 and roof.measured_ms > 0
    ]
    if (not stages and not layers) or not limits:
        return Absent(NAME, TITLE, "The work of no stage is known, as of bundles whose graphs are not ONNX.")
    return Figure(
        NAME,
        TITLE,
        "Lines are what this machine can do at most: rising where memory limits it, flat where computing does; the "
        f"distance of a point below its line is time still on the table. {_asked(run)}",
        drawn(NAME, TITLE, lambda canvas: _draw(run, limits, stages, layers, canvas), height=5.2),
        table(_HEADS, (_row(run, roof) for roof in run.roofline)) + "".join(map(_peaks, peaks)),
        note=_note(run),
    )


def _limits(peaks: Peaks) -> Iterator[Limit]:
    bandwidth, rates = max(peaks.triad_gbs, peaks.read_gbs, *peaks.copy_gbs.values()), peaks.gemm_gflops
    for name, gemm in sorted(rates.items(), key=lambda item: item[1]):
        is_rest = name.endswith(REST) and name.removesuffix(REST) in rates
        if bandwidth > 0 and gemm > 0 and not is_rest:
            yield Limit(name, gemm, bandwidth, peaks.threads)


def _asked(run: Run) -> str:
    """What was answered, and how often."""
    counts = [roof.n for roof in run.roofline if roof.n]
    if not counts:
        return "Stages are medians of answers to the bundles' golden samples."
    least, most = min(counts), max(counts)
    said = f"{least} answers" if least == most else f"{least} to {most} answers"
    names = dict.fromkeys(_input(run, roof) for roof in run.roofline)
    return f"Stages are medians of {said} to {' or '.join(names)}."


def _input(run: Run, roof: Roof) -> str:
    return "a golden sample" if roof.input is None else run.inputs.items[roof.input].id


def _note(run: Run) -> str:
    said = "Large: stages. Small and pale: layers that take 0.5 % or more; the slowest may lie below what is drawn, "
    said += "and the table of layers has all. A share above 105 % is possible only where the data fit the last level "
    said += "cache; elsewhere it says nothing, is a dash in the table, and is not drawn"
    gone = [f"{label_of(run, roof.c)}, {roof.stage}" for roof in run.roofline if not roof.valid]
    return said + (f": {'; '.join(gone)}." if gone else ".")


def _layers(run: Run) -> Iterator[Spot]:
    for layer in run.layers:
        if layer.flops and layer.bytes and layer.us > 0 and layer.share >= LEAST_SHARE:
            yield Spot(layer.c, layer.node, layer.flops / layer.bytes, layer.flops / layer.us / 1e3)


def _draw(run: Run, limits: list[Limit], stages: list[Spot], layers: list[Spot], canvas: Canvas) -> None:
    axes = canvas.subplots()
    at = [spot.intensity for spot in (*stages, *layers)]
    ridges = [limit.gemm / limit.bandwidth for limit in limits]
    _roofs(axes, limits, np.geomspace(min([*at, *ridges, 0.1]) / 2, max([*at, *ridges]) * 4, 60))
    for spot in layers:
        (mark,) = axes.plot([spot.intensity], [spot.speed], **point_style(style_of(run, spot.c)), ms=3.5, alpha=0.45)
        tell(mark, f"{label_of(run, spot.c)}: {spot.name}")
    for c in sorted({spot.c for spot in stages}):
        axes.plot([], [], **point_style(style_of(run, c)), ms=9, label=legend_label(run, c))
    for spot in stages:
        (mark,) = axes.plot([spot.intensity], [spot.speed], **point_style(style_of(run, spot.c)), ms=9)
        tell(mark, f"{label_of(run, spot.c)}: {spot.name}")
    for spot in _labelled(stages):
        axes.annotate(spot.name.replace("_", " "), (spot.intensity, spot.speed), (8, -11), textcoords="offset points")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(
        bottom=max(min(spot.speed for spot in (*stages, *layers)), max(limit.gemm for limit in limits) / 1e5) / 2
    )
    for axis in (axes.xaxis, axes.yaxis):
        logarithmic(axis)
    axes.set_xlabel("FLOP per byte of memory traffic")
    axes.set_ylabel("10⁹ FLOP per second")
    legend(canvas, axes)


def _roofs(axes: Axes, limits: list[Limit], at: np.ndarray) -> None:
    """Those of other numbers of threads than the first are paler."""
    several = len({limit.threads for limit in limits}) > 1
    for place, limit in enumerate(limits):
        look = {"color": colour("ink" if limit.threads == limits[0].threads else "muted"), "lw": 1.4}
        label = f"peak {short(limit.name)}" + (f", {_threads(limit.threads)}" if several else "")
        roof = np.minimum(limit.gemm, at * limit.bandwidth)
        axes.plot(at, roof, ls=_ROOFS[place % len(_ROOFS)], label=label, **look)


def _labelled(stages: list[Spot]) -> list[Spot]:
    """One for all points of a stage that lie together."""
    found: list[Spot] = []
    for spot in sorted(stages, key=lambda spot: spot.speed):
        near = (
            abs(np.log10([spot.speed / other.speed, spot.intensity / other.intensity])).max()
            for other in found
            if other.name == spot.name
        )
        if min(near, default=1.0) > _TOGETHER:
            found.append(spot)
    return found


def _row(run: Run, roof: Roof) -> list[Cell]:
    intensity = roof.flops / roof.bytes if roof.bytes else None
    speed = roof.flops / roof.measured_ms / 1e6 if roof.measured_ms else None
    bound = f"{roof.bound}, in cache" if roof.in_cache else roof.bound
    named: list[Cell] = [label_of(run, roof.c), roof.stage]
    return [
        *named, roof.flops / 1e9, roof.bytes / 1e6, intensity, speed, roof.ceiling_ms, roof.measured_ms,
        percent(roof.share) if roof.valid else UNKNOWN, bound, _input(run, roof), roof.n or None,
    ]  # fmt: skip


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count != 1 else ''}"


def _peaks(peaks: Peaks) -> str:
    rows: list[list[Cell]] = [["memory (triad)", peaks.triad_gbs, "10⁹ bytes/s"]]
    rows += [["memory (reading alone)", peaks.read_gbs, "10⁹ bytes/s"]] if peaks.read_gbs else []
    rows += [[f"memory ({engine} copying)", rate, "10⁹ bytes/s"] for engine, rate in peaks.copy_gbs.items()]
    rows += [[name, gemm, "10⁹ FLOP/s"] for name, gemm in peaks.gemm_gflops.items()]
    return f"<h3>Peaks, {_threads(peaks.threads)}, median of {peaks.repeats}</h3>" + table(
        ("peak", "value", "unit"), rows
    )
