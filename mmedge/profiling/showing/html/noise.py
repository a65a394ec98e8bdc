"""What happened when: answers, and beside them what the machine did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from mmedge.profiling.run import Run
from mmedge.profiling.showing.html.candidates import label_of, legend_label, own, style_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, legend, line_style, stacked
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.measured import NS_PER_MS, NS_PER_S, rounds_of
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import UNKNOWN, number, percent
from mmedge.profiling.showing.html.thin import WINDOWS, Windows, windows

NAME, TITLE = "noise", "Noise over the run"
_MISSING = {"temperature": "°C", "clock rate": "MHz", "stolen time": "steal, %", "sentinel": "sentinel, ms"}


class Track(Struct, frozen=True):
    """A curve over the run's seconds."""

    label: str
    at: np.ndarray
    values: np.ndarray


def figure(run: Run) -> Figure | Absent:
    """One curve below the other, over the same seconds."""
    answers = [track for c in own(run) if len((track := _answers(run, c)).at)]
    if not answers:
        return Absent(NAME, TITLE, "No round was measured.")
    machine = [track for track in _machine(run) if len(track.at)]
    begin = min(float(track.at.min()) for track in [*answers, *machine])
    end = max(float(track.at.max()) for track in [*answers, *machine])
    thinned = [windows(track.at, track.values, begin, end) for track in [*answers, *machine]]
    flagged = _flagged(run, begin, end)
    return Figure(
        NAME,
        TITLE,
        "Lines should be flat: where the sentinel (the same small computation before every round) or the machine moves "
        "together with the answers, the machine made the difference; shaded parts have flagged rounds.",
        drawn(
            NAME,
            TITLE,
            lambda canvas: _draw(run, answers, machine, thinned, flagged, canvas),
            height=3.2 + 1.1 * len(machine),
        ),
        _table([*answers, *machine], thinned, flagged),
        note=_note(run, machine),
    )


def _answers(run: Run, c: int) -> Track:
    """By the candidate's median of the same input: what inputs differ in is no noise."""
    samples = rounds_of(run, c)
    times: dict[int, list[int]] = {}
    for sample in samples:
        times.setdefault(sample.input, []).append(sample.answer_ns)
    usual = {input_: float(np.median(found)) or 1.0 for input_, found in times.items()}
    found = [(sample.start_ns / NS_PER_S, sample.answer_ns / usual[sample.input]) for sample in samples]
    return _track(label_of(run, c), found)


def _machine(run: Run) -> list[Track]:
    begins: dict[int, float] = {}
    for sample in run.rounds:
        begins[sample.round] = min(begins.get(sample.round, np.inf), sample.start_ns / NS_PER_S)
    sentinel = [(begins[each.round], each.ns / NS_PER_MS) for each in run.sentinel if each.round in begins]
    at = [host.t_ns / NS_PER_S for host in run.host]
    columns = {
        "°C": [host.celsius for host in run.host],
        "MHz": [host.mhz for host in run.host],
        "steal, %": [None if host.steal is None else 100 * host.steal for host in run.host],
    }
    told = (_track(label, zip(at, values, strict=True)) for label, values in columns.items())
    return [_track("sentinel, ms", sentinel), *told]


def _track(label: str, points: Iterable[tuple[float, float | None]]) -> Track:
    known = [point for point in points if point[1] is not None]
    at, values = np.array(known, dtype=float).reshape(-1, 2).T
    return Track(label, at, values)


def _flagged(run: Run, begin: float, end: float) -> np.ndarray:
    """Flagged answers by window."""
    at = [sample.start_ns / NS_PER_S for sample in run.rounds if sample.flags]
    return np.histogram(at, bins=WINDOWS, range=(begin, max(end, begin + 1e-9)))[0]


def _draw(
    run: Run, answers: list[Track], machine: list[Track], thinned: list[Windows], flagged: np.ndarray, canvas: Canvas
) -> None:
    rows = stacked(canvas, [2.4, *(1.0 for _ in machine)])
    unbroken, thinned = thinned, [_broken(found) for found in thinned]
    for c, found in zip(own(run), thinned, strict=False):
        style = style_of(run, c)
        rows[0].fill_between(found.at, found.low, found.high, color=colour(style.colour), alpha=0.12, lw=0)
        rows[0].plot(found.at, found.median, label=legend_label(run, c), **line_style(style))
    rows[0].set_ylabel("answer by its median")
    for axes, track, found in zip(rows[1:], machine, thinned[len(answers) :], strict=True):
        axes.fill_between(found.at, found.low, found.high, color=colour("ink"), alpha=0.18, lw=0)
        axes.plot(found.at, found.median, color=colour("ink"), lw=1.2)
        axes.set_ylabel(track.label)
        _room(axes, found)
    rows[-1].set_xlabel("seconds since the run began")
    _shade(rows, flagged, unbroken)
    legend(canvas, rows[0])


def _broken(found: Windows) -> Windows:
    """Without a line over times in which nothing was measured, as when new processes are started."""
    steps = np.diff(found.at)
    gaps = np.flatnonzero(steps > 6 * np.median(steps)) + 1 if len(steps) else steps.astype(int)
    return Windows(*(np.insert(each, gaps, np.nan) for each in (found.at, found.low, found.median, found.high)))


def _room(axes: Any, found: Windows) -> None:
    """A flat line is drawn flat, not as its last digits."""
    low, middle, high = np.nanmin(found.low), np.nanmedian(found.median), np.nanmax(found.high)
    spare = max(0.05 * abs(middle), 0.2 * (high - low), 1e-3)
    axes.set_ylim(low - spare, high + spare)


def _shade(rows: Sequence[Any], flagged: np.ndarray, thinned: list[Windows]) -> None:
    begin = min(float(found.at.min()) for found in thinned)
    width = (max(float(found.at.max()) for found in thinned) - begin) / max(WINDOWS - 1, 1)
    for place in np.flatnonzero(flagged):
        left = begin + (place - 0.5) * width
        for axes in rows:
            axes.axvspan(left, left + width, color=colour("vermillion"), alpha=0.22, lw=0)


def _table(tracks: list[Track], thinned: list[Windows], flagged: np.ndarray) -> str:
    by_window: dict[float, dict[int, str]] = {}
    for place, found in enumerate(thinned):
        for at, *three in zip(found.at, found.low, found.median, found.high, strict=True):
            low, median, high = (number(float(value)) for value in three)
            by_window.setdefault(float(at), {})[place] = f"{median} ({low} .. {high})"
    begin = min(by_window)
    width = (max(by_window) - begin) / max(WINDOWS - 1, 1) or 1.0
    rows: list[list[Cell]] = []
    for at, told in sorted(by_window.items()):
        flags = int(flagged[min(round((at - begin) / width), WINDOWS - 1)])
        rows.append([at, *(told.get(place, UNKNOWN) for place in range(len(tracks))), flags])
    return table(["second", *(track.label for track in tracks), "flagged answers"], rows)


def _note(run: Run, machine: list[Track]) -> str:
    flags = sum(bool(sample.flags) for sample in run.rounds)
    said = f"{flags:,} of {len(run.rounds):,} answers are flagged ({percent(flags / len(run.rounds))}). "
    said += f"Thinned to {WINDOWS} parts of the time: line at the median, area from least to most. "
    said += "Answers are divided by the candidate's median of the same input; the table has medians (least .. most)."
    there = {track.label for track in machine}
    missing = [name for name, label in _MISSING.items() if label not in there]
    return said + (f" Not told by this machine: {', '.join(missing)}." if missing else "")
