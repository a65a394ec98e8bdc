"""The table that `targets` and `recipes` print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WIDTH = 80


def show_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, wrap: str) -> None:
    """Print rows under their titles, at most 80 columns wide; the column ``wrap`` gives way first."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table(box=None, width=min(WIDTH, console.width), pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title != wrap)
    for row in rows:
        table.add_row(*row)
    with console.capture() as shown:  # rich would answer a closed output by ending the process
        console.print(table)
    print(shown.get(), end="")
