"""Tables of HTML: every plot has one with the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from mmedge.profiling.showing.html.text import escape, number

Cell: TypeAlias = str | float | None


def table(titles: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Numbers to the right, texts escaped, unknown numbers as a dash; it scrolls where it is too wide."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Cell) -> str:
    return f"<td>{escape(value)}</td>" if isinstance(value, str) else f'<td class="n">{number(value)}</td>'
