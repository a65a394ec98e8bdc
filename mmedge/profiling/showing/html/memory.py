"""Memory by stage."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmedge.profiling.run import OTHER, STAGES, Memory, Run
from mmedge.profiling.showing.html.candidates import label_of, plot_label
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, legend, panels, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import mib, number

NAME, TITLE = "memory", "Memory over the stages"
_ORDER = ("load", *STAGES, OTHER, "steady", "total")
_HEADS = ("candidate", "stage", "PSS", "must stay", "of files", "VmHWM", "GPU", "method")


def figure(run: Run) -> Figure | Absent:
    """What each stage holds, in what must stay in memory and what the kernel may drop."""
    rows = sorted(run.memory, key=lambda row: (row.c, _place(row.stage)))
    if not rows:
        return Absent(NAME, TITLE, "Memory was not measured: it takes /proc/PID/smaps_rollup, which Linux has.")
    known = [row for row in rows if row.pss is not None or row.hwm is not None]
    if not known:
        return Absent(NAME, TITLE, f"This machine does not tell it: {rows[0].method or 'no reason is known'}.")
    height = 1.0 + 2.9 * -(-len({row.c for row in known}) // 2)
    return Figure(
        NAME,
        TITLE,
        "Bars are the fair share of memory (PSS) at its highest in a stage: the lower part must stay, the upper part "
        "are pages of files that the kernel may drop and read again; the mark is the kernel's own high-water mark.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, known, canvas), height=height),
        table(tuple(f"{h}, MiB" if h in _HEADS[2:7] else h for h in _HEADS), (_row(run, row) for row in rows)),
        note="VmHWM counts shared pages in full. load: while it is opened; steady: at rest; total: over everything."
        + (" GPU memory is part of the same memory here." if any(row.unified for row in rows) else ""),
    )


def _place(stage: str) -> int:
    return _ORDER.index(stage) if stage in _ORDER else len(_ORDER)


def _draw(run: Run, rows: list[Memory], canvas: Canvas) -> None:
    present = sorted({row.c for row in rows})
    stages = sorted({row.stage for row in rows}, key=_place)
    plots = panels(canvas, len(present), "MiB", sharey=True, sharex=True)
    for axes, c in zip(plots, present, strict=True):
        _panel(axes, {row.stage: row for row in rows if row.c == c}, stages)
        axes.set_title(plot_label(run, c, 44))
    legend(canvas, plots[0])


def _panel(axes: Any, found: dict[str, Memory], stages: list[str]) -> None:
    at = np.arange(len(stages))
    rows = [found.get(stage) for stage in stages]
    stays = np.array([mib(row.pss_anon) or 0.0 if row else 0.0 for row in rows])
    files = np.array([mib(row.pss_file) or 0.0 if row else 0.0 for row in rows])
    gpu = np.array([mib(row.gpu) or 0.0 if row else 0.0 for row in rows])
    edge = {"ec": colour("panel"), "lw": 0.8, "width": 0.7}
    for values, below, face, pattern, label in (
        (stays, 0 * stays, "blue", "", "must stay (anonymous)"),
        (files, stays, "sky", "//", "pages of files"),
        (gpu, stays + files, "green", "xx", "GPU"),
    ):
        if values.any():
            bars = axes.bar(at, values, bottom=below, color=colour(face), hatch=pattern, label=label, **edge)
            for patch, stage, value in zip(bars, stages, values, strict=True):
                tell(patch, f"{stage}, {label}: {number(value)} MiB")
    marks = [(n, mib(row.hwm)) for n, row in enumerate(rows) if row and row.hwm is not None]
    if marks:
        axes.plot(*zip(*marks, strict=True), color=colour("ink"), marker="_", ms=14, mew=2, ls="none", label="VmHWM")
    axes.set_xticks(at, [stage.replace("_", " ") for stage in stages], rotation=40, ha="right", rotation_mode="anchor")
    axes.grid(axis="x", visible=False)


def _row(run: Run, row: Memory) -> list[Cell]:
    sizes = (row.pss, row.pss_anon, row.pss_file, row.hwm, row.gpu)
    return [label_of(run, row.c), row.stage, *map(mib, sizes), row.method]
