"""What the machine could do, and what stages and layers make of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from mmedge.profiling.run import Peaks, Roof, Run
from mmedge.profiling.showing.html.candidates import label_of, legend_label, style_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, legend, logarithmic, point_style, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import percent

NAME, TITLE = "roofline", "Roofline"
REST = " rest"
"""Ends the peaks of what a graph with quantized weights computes otherwise: numbers of the table."""
MOST_LAYERS, LEAST_SHARE = 400, 0.005
_ROOFS = ("-", "--", "-.", ":")
_TOGETHER = 0.4
"""Powers of ten."""
_HEADS = (
    "candidate", "stage", "FLOP", "bytes", "FLOP/byte", "10⁹ FLOP/s", "at best, ms", "measured, ms", "of the roof",
    "bound by",
)  # fmt: skip


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
    peaks, layers = run.peaks, list(_layers(run))[:MOST_LAYERS]
    stages = [
        Spot(roof.c, roof.stage, roof.flops / roof.bytes, roof.flops / roof.measured_ms / 1e6)
        for roof in run.roofline
        if roof.flops > 0 and roof.bytes > 0 and roof.measured_ms > 0
    ]
    if (not stages and not layers) or peaks.triad_gbs <= 0 or not any(gemm > 0 for gemm in peaks.gemm_gflops.values()):
        return Absent(NAME, TITLE, "The work of no stage is known, as of bundles whose graphs are not ONNX.")
    return Figure(
        NAME,
        TITLE,
        "Lines are what this machine can do at most: rising where memory limits it, flat where computing does; the "
        "distance of a point below its line is time still on the table.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, peaks, stages, layers, canvas), height=5.2),
        table(_HEADS, (_row(run, roof) for roof in run.roofline)) + _peaks(peaks),
        note="Large: stages. Small and pale: layers that take 0.5 % or more; the slowest may lie below what is drawn, "
        "and the table of layers has all. More than 100 % is only possible where the data fit the cache.",
    )


def _layers(run: Run) -> Iterator[Spot]:
    for layer in run.layers:
        if layer.flops and layer.bytes and layer.us > 0 and layer.share >= LEAST_SHARE:
            yield Spot(layer.c, layer.node, layer.flops / layer.bytes, layer.flops / layer.us / 1e3)


def _draw(run: Run, peaks: Peaks, stages: list[Spot], layers: list[Spot], canvas: Canvas) -> None:
    axes = canvas.subplots()
    at = [spot.intensity for spot in (*stages, *layers)]
    bandwidth = max(peaks.triad_gbs, peaks.read_gbs)
    ridges = [gemm / bandwidth for gemm in peaks.gemm_gflops.values()]
    xs = np.geomspace(min([*at, *ridges, 0.1]) / 2, max([*at, *ridges]) * 4, 60)
    roofs = {
        name: gemm
        for name, gemm in peaks.gemm_gflops.items()
        if name.removesuffix(REST) not in peaks.gemm_gflops or not name.endswith(REST)
    }
    for place, (name, gemm) in enumerate(sorted(roofs.items(), key=lambda item: item[1])):
        roof = np.minimum(gemm, xs * bandwidth)
        axes.plot(xs, roof, color=colour("ink"), lw=1.4, ls=_ROOFS[place % len(_ROOFS)], label=f"peak {name}")
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
    axes.set_ylim(bottom=max(min(spot.speed for spot in (*stages, *layers)), max(roofs.values()) / 1e5) / 2)
    for axis in (axes.xaxis, axes.yaxis):
        logarithmic(axis)
    axes.set_xlabel("FLOP per byte of memory traffic")
    axes.set_ylabel("10⁹ FLOP per second")
    legend(canvas, axes)


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
        *named,
        roof.flops,
        roof.bytes,
        intensity,
        speed,
        roof.ceiling_ms,
        roof.measured_ms,
        percent(roof.share),
        bound,
    ]


def _peaks(peaks: Peaks) -> str:
    rows: list[list[Cell]] = [["memory (triad)", peaks.triad_gbs, "10⁹ bytes/s"]]
    rows += [["memory (reading alone)", peaks.read_gbs, "10⁹ bytes/s"]] if peaks.read_gbs else []
    rows += [[name, gemm, "10⁹ FLOP/s"] for name, gemm in peaks.gemm_gflops.items()]
    return f"<h3>Peaks, {peaks.threads} threads, median of {peaks.repeats}</h3>" + table(
        ("peak", "value", "unit"), rows
    )
