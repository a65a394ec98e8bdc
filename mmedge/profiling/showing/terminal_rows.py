"""How numbers, names and rows look on a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from mmedge.profiling.run import Absolute, Ratio, Run

WIDTH = 80
NONE = "-"
"""Stands for what is not known."""
TWIN = "="
"""Stands for the baseline's second part; the others have numbers."""

_MIB = 1 << 20


def marks(run: Run) -> list[str]:
    """What stands for each candidate in a table; ``!`` after those whose answers are not verified."""
    numbers = [*(str(number) for number in range(1, len(run.candidates))), TWIN]
    return [f"{mark}{'!' if each.unverified else ''}" for mark, each in zip(numbers, run.candidates, strict=True)]


def number(value: float | None) -> str:
    """Three digits or more that mean something."""
    if value is None:
        return NONE
    size = abs(value)
    return f"{value:.{3 if size < 1 else 2 if size < 10 else 1 if size < 1000 else 0}f}"


def points(value: float) -> str:
    """Of 100, with a sign."""
    return f"{value:+.{1 if abs(value) < 100 else 0}f}"


def mebibytes(value: float | None) -> str:
    """Of a number of bytes."""
    return NONE if value is None else number(value / _MIB)


def middle(found: Absolute | None) -> str:
    """Its value."""
    return number(found.value) if found else NONE


def interval(found: Absolute | Ratio | None) -> str:
    """Its 95 % interval."""
    if found is None or found.low is None or found.high is None:
        return NONE
    if isinstance(found, Ratio):
        return f"[{found.low:.3f}-{found.high:.3f}]"
    return f"[{number(found.low)}-{number(found.high)}]"


def row(formats: Sequence[str], cells: Sequence[str]) -> str:
    """Cells in columns."""
    return " ".join(form.format(cell) for form, cell in zip(formats, cells, strict=True)).rstrip()


def table(formats: Sequence[str], heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Nothing at all without rows."""
    lines = [row(formats, cells) for cells in rows]
    if lines:
        yield row(formats, heads)
        yield from lines


def wrapped(label: str, text: str) -> list[str]:
    """After a label, indented by its length (but no more than a quarter of the line)."""
    indent = " " * min(len(label), WIDTH // 4)
    return textwrap.wrap(printable(text), WIDTH, initial_indent=label, subsequent_indent=indent)


def printable(text: str) -> str:
    """Names and answers come from strangers: what a terminal would obey is a question mark."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
