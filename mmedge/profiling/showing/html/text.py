"""Words and numbers as they stand in the report; names and answers come from strangers."""

from __future__ import annotations

import html

UNKNOWN = "\N{EN DASH}"
_KEPT = "\N{NO-BREAK SPACE}\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
_MIB = 1 << 20


def clean(text: str) -> str:
    """Without control characters, half surrogate pairs and marks that turn the direction of writing."""
    return "".join(map(_clean, text))


def _clean(mark: str) -> str:
    if mark.isprintable() or mark in _KEPT:
        return mark
    return " " if mark.isspace() else "\N{REPLACEMENT CHARACTER}"


def escape(text: str) -> str:
    """As HTML shows it, between tags and in quoted attributes."""
    return html.escape(clean(text), quote=True)


def short(text: str, most: int = 40) -> str:
    """One clean line for a plot; the table beside it has the whole."""
    line = clean(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def number(value: float | None) -> str:
    """With three or four digits that count; what is not known is a dash."""
    if value is None:
        return UNKNOWN
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if 0 < size < 0.001:
        return f"{value:.1e}"
    return f"{value:,.{0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 1 else 3}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return UNKNOWN if share is None else f"{share:.{digits}%}".replace("%", "\N{NO-BREAK SPACE}%")


def mib(size: float | None) -> float | None:
    """Bytes in MiB."""
    return None if size is None else size / _MIB


def interval(low: float | None, high: float | None) -> str:
    """Both ends in brackets, on one line; nothing where there is none."""
    return "" if low is None or high is None else f"[{number(low)},\N{NO-BREAK SPACE}{number(high)}]"
