"""A part of the report: a plot, how to read it, and its numbers; or why it is not there."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from mmedge.profiling.showing.html.svg import Drawing
from mmedge.profiling.showing.html.text import escape


class Figure(Struct, frozen=True):
    """``table`` is HTML; the texts are not."""

    name: str
    """What links to it."""
    title: str
    reading: str
    """One sentence that says how to read it."""
    drawing: Drawing
    table: str
    note: str = ""


class Gallery(Struct, frozen=True):
    """A part without a plot: ``body`` is HTML."""

    name: str
    title: str
    reading: str
    body: str
    note: str = ""


class Absent(Struct, frozen=True):
    """A part that this run has no data for."""

    name: str
    title: str
    why: str


Part = Figure | Gallery | Absent


def html_of(part: Part, marks: Sequence[str]) -> str:
    """As it stands in the page; ``marks`` follow the title."""
    heading = f"<h2>{escape(part.title)}{badges(marks)}</h2>"
    if isinstance(part, Absent):
        return f'<section id="{part.name}">{heading}<p class="absent">{escape(part.why)}</p></section>'
    if isinstance(part, Gallery):
        return f'<section id="{part.name}">{heading}<p>{escape(part.reading)}</p>{part.body}{_note(part)}</section>'
    return (
        f'<figure id="{part.name}"><figcaption>{heading}<p>{escape(part.reading)}</p></figcaption>'
        f'<div class="scroll plot" tabindex="0">{part.drawing.markup}</div>{_note(part)}'
        f"<details><summary>The numbers</summary>{part.table}</details></figure>"
    )


def badges(marks: Sequence[str]) -> str:
    """What is to be remembered while reading."""
    return "".join(f' <span class="mark">{escape(mark)}</span>' for mark in marks)


def _note(part: Figure | Gallery) -> str:
    return f'<p class="note">{escape(part.note)}</p>' if part.note else ""
