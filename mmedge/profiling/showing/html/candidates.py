"""How candidates are called and told apart in every plot: by colour, and by marker and line for who sees no colours."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from msgspec import Struct

from mmedge.profiling.run import Run
from mmedge.profiling.showing.html.text import short

COLOURS = ("blue", "vermillion", "green", "purple", "orange", "sky")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
_LINES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


class Style(Struct, frozen=True):
    """The look of a candidate."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


def style_of(run: Run, c: int) -> Style:
    """The same in every plot; the baseline's twin is grey."""
    if c == twin_of(run):
        return Style("muted", "x", (0, (1, 1)))
    return Style(COLOURS[c % len(COLOURS)], _MARKERS[c % len(_MARKERS)], _LINES[c % len(_LINES)])


def label_of(run: Run, c: int) -> str:
    """The name, with the mark of one whose answers were not verified."""
    candidate = run.candidates[c]
    return f"{candidate.name} (unverified)" if candidate.unverified else candidate.name


def plot_label(run: Run, c: int, width: int = 26) -> str:
    """The same on at most two lines; the mark is kept whatever the length of the name."""
    candidate = run.candidates[c]
    lines = textwrap.wrap(short(candidate.name, 2 * width), width) or ["?"]
    if len(lines) > 2:
        lines = [lines[0], short(" ".join(lines[1:]), width)]
    return "\n".join([*lines, "(unverified)"] if candidate.unverified else lines)


def legend_label(run: Run, c: int) -> str:
    """The same on one line."""
    candidate = run.candidates[c]
    return short(candidate.name, 38) + (" (unverified)" if candidate.unverified else "")


def twin_of(run: Run) -> int | None:
    """The place of the baseline under its second name, if it took part."""
    first, last = run.candidates[0], run.candidates[-1]
    same = ("bundle", "digest", "backend", "threads", "command")
    is_twin = len(run.candidates) > 1 and all(getattr(first, name) == getattr(last, name) for name in same)
    return len(run.candidates) - 1 if is_twin else None


def own(run: Run) -> Sequence[int]:
    """The places of all candidates but the twin."""
    return range(len(run.candidates) - (twin_of(run) is not None))


def marks_of(run: Run) -> tuple[str, ...]:
    """What must be said of the whole run wherever its numbers stand."""
    found = [] if run.complete else ["incomplete run"]
    in_blocks = run.protocol.interleave == "blocks" and len(run.candidates) > 1
    if in_blocks or any("unpaired" in flag.code for flag in run.validity.flags):
        found.append("unpaired comparison")
    return tuple(found)
