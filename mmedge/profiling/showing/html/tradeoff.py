"""Quality, latency and memory in one picture."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from mmedge.profiling.run import Run, Score
from mmedge.profiling.showing.html.candidates import label_of, legend_label, own, style_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, legend, panels, point_style, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.tasks import heads_of, measure_of, names_of, reference_of, score_of, tasks_of
from mmedge.profiling.showing.html.text import interval, mib, number, short

NAME, TITLE = "tradeoff", "Quality, time and memory"
_HEADS = ("answer, ms", "quality", "points lost", "95 %", "peak PSS, MiB", "verdict", "on the front")


class Point(Struct, frozen=True):
    """A candidate."""

    c: int
    ms: float
    quality: float
    memory: float | None
    score: Score


class Plane(Struct, frozen=True):
    """All candidates at one task: only these may be compared."""

    task: str
    metric: str
    """Empty where no right answers are known."""
    reference: str
    points: tuple[Point, ...]

    @property
    def quality(self) -> str:
        """What is meant by it."""
        return f"mean {self.metric}" if self.metric else "share of equal answers"

    @property
    def front(self) -> tuple[Point, ...]:
        return tuple(point for point in self.points if not any(_beats(other, point) for other in self.points))


def figure(run: Run) -> Figure | Absent:
    """Candidates as points, a plane for each task; those that nothing beats in everything are ringed."""
    planes = [plane for task in tasks_of(run) if (plane := _plane(run, task)).points]
    if not planes:
        return Absent(NAME, TITLE, "The answers were not judged: --inputs takes a list with right answers.")
    rows = (_row(run, plane, point) for plane in planes for point in plane.points)
    height = 0.8 + 3.8 * -(-len(planes) // 2)
    return Figure(
        NAME,
        TITLE,
        "Up is better and left is faster; smaller points need less memory, and no ringed candidate is beaten in all "
        "three by another.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, planes, canvas), height=height),
        table((*heads_of(run), *_HEADS), rows),
        note=" ".join(map(_said, planes)),
    )


def _said(plane: Plane) -> str:
    beside = "" if plane.metric else f", to those of {plane.reference}"
    return f"Quality{f' of {plane.task}' if plane.task else ''}: {plane.quality}{beside}."


def _plane(run: Run, task: str) -> Plane:
    scores = [score for c in own(run) if (score := score_of(run, c, task))]
    metric = next((score.metric for score in scores if score.metric), "")
    points = tuple(point for score in scores if score.metric == metric and (point := _point(run, task, score)))
    return Plane(task, metric, label_of(run, reference_of(run)), points)


def _point(run: Run, task: str, score: Score) -> Point | None:
    time, memory = measure_of(run, score.c, task, "answer_ms"), run.absolute(score.c, "peak_pss", "value")
    quality = score.mean if score.metric else score.agreement
    if quality is None or time is None or time.value is None:
        return None
    return Point(score.c, time.value, quality, mib(memory.value) if memory else None, score)


def _row(run: Run, plane: Plane, point: Point) -> list[Cell]:
    score = point.score
    told: list[Cell] = [*names_of(run, point.c, plane.task), point.ms, point.quality, score.lost]
    front = "yes" if point in plane.front else ""
    return [*told, interval(score.low, score.high), point.memory, score.verdict or "", front]


def _beats(one: Point, other: Point) -> bool:
    """Nowhere worse, and somewhere better; unknown memory counts as equal."""
    known = one.memory is not None and other.memory is not None
    mine = (one.ms, -one.quality, one.memory or 0.0 if known else 0.0)
    theirs = (other.ms, -other.quality, other.memory or 0.0 if known else 0.0)
    return all(a <= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def _draw(run: Run, planes: list[Plane], canvas: Canvas) -> None:
    plots = panels(canvas, len(planes), "")
    most = max((point.memory or 0.0 for plane in planes for point in plane.points), default=0.0) or 1.0
    for axes, plane in zip(plots, planes, strict=True):
        _panel(axes, run, plane, most)
        axes.set_title(short(plane.task))
        axes.set_ylabel(plane.quality)
    for c in sorted({point.c for plane in planes for point in plane.points}):
        plots[0].plot([], [], **point_style(style_of(run, c)), label=legend_label(run, c))
    legend(canvas, plots[0])


def _panel(axes: Any, run: Run, plane: Plane, most: float) -> None:
    for point in plane.points:
        size = 7 + 13 * ((point.memory or most) / most) ** 0.5
        (mark,) = axes.plot([point.ms], [point.quality], **point_style(style_of(run, point.c)), ms=size, alpha=0.85)
        memory = "" if point.memory is None else f", {number(point.memory)} MiB"
        tell(mark, f"{label_of(run, point.c)}: {number(point.ms)} ms, {number(point.quality)}{memory}")
        if point in plane.front:
            axes.plot([point.ms], [point.quality], marker="o", ms=size + 8, mfc="none", mec=colour("ink"), mew=1)
    axes.margins(0.12)
    axes.set_xlabel("median answer, ms")
