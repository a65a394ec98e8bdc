"""Quality, latency and memory in one picture."""

from __future__ import annotations

from msgspec import Struct

from mmedge.profiling.run import Run, Score
from mmedge.profiling.showing.html.candidates import label_of, legend_label, own, style_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, legend, point_style, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import interval, mib, number

NAME, TITLE = "tradeoff", "Quality, time and memory"
_HEADS = ("candidate", "answer, ms", "quality", "points lost", "95 %", "peak PSS, MiB", "verdict", "on the front")


class Point(Struct, frozen=True):
    """A candidate."""

    c: int
    ms: float
    quality: float
    memory: float | None
    score: Score


def figure(run: Run) -> Figure | Absent:
    """Candidates as points; those that nothing beats in everything are joined."""
    points = [point for c in own(run) if (point := _point(run, c))]
    if not points:
        return Absent(NAME, TITLE, "The answers were not judged: --inputs takes a list with right answers.")
    metric = next((point.score.metric for point in points if point.score.metric), "")
    what = f"mean {metric}" if metric else "share of answers equal to the baseline's"
    front = [point for point in points if not any(_beats(other, point) for other in points)]
    return Figure(
        NAME,
        TITLE,
        "Up is better and left is faster; smaller points need less memory, and no ringed candidate is beaten in all "
        "three by another.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, points, front, what, canvas), height=4.6),
        table(
            _HEADS,
            (_row(run, point, point in front) for point in points),
        ),
        note=f"Quality: {what}.",
    )


def _point(run: Run, c: int) -> Point | None:
    score = next((score for score in run.quality if score.c == c), None)
    time, memory = (
        run.absolute(c, "answer_ms"),
        run.absolute(c, "peak_pss", "value") or run.absolute(c, "peak_pss", "max"),
    )
    if score is None or time is None or time.value is None:
        return None
    quality = score.mean if score.mean is not None else score.agreement
    return None if quality is None else Point(c, time.value, quality, mib(memory.value) if memory else None, score)


def _row(run: Run, point: Point, in_front: bool) -> list[Cell]:
    score = point.score
    told: list[Cell] = [label_of(run, point.c), point.ms, point.quality, score.lost, interval(score.low, score.high)]
    return [*told, point.memory, score.verdict or "", "yes" if in_front else ""]


def _beats(one: Point, other: Point) -> bool:
    """Nowhere worse, and somewhere better; unknown memory counts as equal."""
    known = one.memory is not None and other.memory is not None
    mine = (one.ms, -one.quality, one.memory or 0.0 if known else 0.0)
    theirs = (other.ms, -other.quality, other.memory or 0.0 if known else 0.0)
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def _draw(run: Run, points: list[Point], front: list[Point], what: str, canvas: Canvas) -> None:
    axes = canvas.subplots()
    most = max((point.memory or 0.0 for point in points), default=0.0) or 1.0
    for point in points:
        size = 7 + 13 * ((point.memory or most) / most) ** 0.5
        label = f"{legend_label(run, point.c)}"
        look = point_style(style_of(run, point.c))
        (mark,) = axes.plot([point.ms], [point.quality], **look, ms=size, alpha=0.85)
        memory = "" if point.memory is None else f", {number(point.memory)} MiB"
        tell(mark, f"{label_of(run, point.c)}: {number(point.ms)} ms, {number(point.quality)}{memory}")
        axes.plot([], [], **look, label=label)
        if point in front:
            axes.plot([point.ms], [point.quality], marker="o", ms=size + 8, mfc="none", mec=colour("ink"), mew=1)
    axes.margins(0.12)
    axes.set_xlabel("median answer, ms")
    axes.set_ylabel(what)
    legend(canvas, axes)
