"""Whether it stays as fast as it began."""

from __future__ import annotations

from mmedge.profiling.run import Minute, Run
from mmedge.profiling.showing.html.candidates import label_of, legend_label, style_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, legend, line_style, stacked, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import percent

NAME, TITLE = "soak", "Minute by minute"
_HEADS = ("candidate", "minute", "answers", "median, ms", "°C before", "°C after", "MHz", "throttled")


def figure(run: Run) -> Figure | Absent:
    """Answers, temperature and clock rate by minute."""
    if not run.minutes:
        return Absent(NAME, TITLE, "It did not answer for long: --soak brings the first minute beside the last.")
    by_candidate: dict[int, list[Minute]] = {}
    for minute in run.minutes:
        by_candidate.setdefault(minute.c, []).append(minute)
    fields = [name for name in ("celsius", "mhz") if any(getattr(m, name) is not None for m in run.minutes)]
    return Figure(
        NAME,
        TITLE,
        "A line that rises is a machine that gets slower while it works; ringed minutes were throttled.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, by_candidate, fields, canvas), height=3.2 + 1.5 * len(fields)),
        table(_HEADS, (_row(run, minute) for minute in run.minutes))
        + table(
            ("candidate", "last minute"), ([label_of(run, c), _change(found)] for c, found in by_candidate.items())
        ),
    )


def _draw(run: Run, by_candidate: dict[int, list[Minute]], fields: list[str], canvas: Canvas) -> None:
    rows = stacked(canvas, [2.0, *(1.0 for _ in fields)])
    for c, found in by_candidate.items():
        style = style_of(run, c)
        at = [minute.minute + 1 for minute in found]
        look = {**line_style(style), "marker": style.marker, "ms": 5}
        (line,) = rows[0].plot(at, [minute.median_ms for minute in found], label=legend_label(run, c), **look)
        tell(line, label_of(run, c))
        hot = [(minute.minute + 1, minute.median_ms) for minute in found if minute.throttled]
        if hot:
            rows[0].plot(*zip(*hot, strict=True), marker="o", ms=14, mfc="none", mec=colour("ink"), ls="none")
        for axes, field in zip(rows[1:], fields, strict=True):
            known = [(m.minute + 1, getattr(m, field)) for m in found if getattr(m, field) is not None]
            if known:
                axes.plot(*zip(*known, strict=True), **look)
    rows[0].set_ylabel("median, ms")
    rows[0].set_ylim(0, 1.12 * max(minute.median_ms for minute in run.minutes) or 1)
    for axes, field in zip(rows[1:], fields, strict=True):
        axes.set_ylabel("°C" if field == "celsius" else "MHz")
    rows[-1].set_xlabel("minute")
    legend(canvas, rows[0])


def _row(run: Run, minute: Minute) -> list[Cell]:
    throttled = None if minute.throttled is None else "yes" if minute.throttled else "no"
    head: list[Cell] = [label_of(run, minute.c), minute.minute + 1, minute.answers, minute.median_ms]
    return [*head, minute.celsius_before, minute.celsius, minute.mhz, throttled]


def _change(found: list[Minute]) -> str:
    """Beside the first."""
    change = found[-1].median_ms / found[0].median_ms - 1 if found[0].median_ms else 0.0
    return f"{percent(abs(change))} {'slower' if change > 0 else 'faster'} than the first"
