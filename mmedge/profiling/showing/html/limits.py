"""The least memory that it answers in."""

from __future__ import annotations

from mmedge.profiling.run import Run
from mmedge.profiling.showing.html.candidates import label_of, plot_label
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, from_zero, legend, lines, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import table
from mmedge.profiling.showing.html.text import mib, number

NAME, TITLE = "limits", "Memory limits"


def figure(run: Run) -> Figure | Absent:
    """Every attempt under a limit."""
    if not run.limits:
        return Absent(NAME, TITLE, "No limit was tried: --memory-limit brings the smallest that works.")
    present = sorted({limit.c for limit in run.limits})
    rows = (
        [label_of(run, limit.c), mib(limit.bytes), "answers" if limit.works else "fails", limit.method, limit.note]
        for limit in sorted(run.limits, key=lambda limit: (limit.c, limit.bytes))
    )
    return Figure(
        NAME,
        TITLE,
        "Each mark is an attempt to answer with no more memory than that: the leftmost dot is the least that worked.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, present, canvas), height=1.6 + 0.5 * len(present)),
        table(("candidate", "limit, MiB", "it", "method", "what happened"), rows)
        + table(("candidate", "least that worked, MiB"), ([label_of(run, c), _least(run, c)] for c in present)),
    )


def _draw(run: Run, present: list[int], canvas: Canvas) -> None:
    axes = canvas.subplots()
    for works, marker, face in ((True, "o", "blue"), (False, "x", "vermillion")):
        found = [limit for limit in run.limits if limit.works is works]
        look = {"marker": marker, "color": colour(face), "ls": "none", "mew": 2}
        axes.plot([], [], label="answers" if works else "fails", **look)
        for limit in found:
            (mark,) = axes.plot([mib(limit.bytes)], [present.index(limit.c)], **look)
            tell(mark, f"{number(mib(limit.bytes))} MiB: {limit.note or ('answers' if works else 'fails')}")
    lines(axes, [plot_label(run, c) for c in present])
    from_zero(axes, max(mib(limit.bytes) or 0.0 for limit in run.limits))
    axes.set_xlabel("limit, MiB")
    legend(canvas, axes)


def _least(run: Run, c: int) -> float | None:
    return mib(min((limit.bytes for limit in run.limits if limit.c == c and limit.works), default=None))
