"""Plots, drawn by matplotlib as SVG whose text stays text."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from mmedge.needs import needs
from mmedge.profiling.showing.html.candidates import Style
from mmedge.profiling.showing.html.svg import TIP, Drawing, inline
from mmedge.profiling.showing.html.text import clean

WIDTH = 10.0
"""Inches, of 72 units in the SVG."""

_LETTERS, _HANDLE = 105, 8
"""Letters of a legend that fit the width, and what stands before and behind each name, in letters."""

_VARIABLES = (
    "ink", "muted", "faint", "panel", "band",
    "blue", "vermillion", "green", "purple", "orange", "sky", "yellow",
)  # fmt: skip
_STAND_INS = {name: f"#0102{place:02x}" for place, name in enumerate(_VARIABLES, 1)}
"""Colours that nobody sees: the page replaces them with variables of its style sheet."""

Axes: TypeAlias = Any
Canvas: TypeAlias = Any
"""A figure of matplotlib, which is not installed where runs are measured."""


def colour(name: str) -> str:
    """What stands for a colour of the page while drawing."""
    return _STAND_INS[name]


def drawn(name: str, title: str, draw: Callable[[Canvas], None], *, height: float) -> Drawing:
    """What ``draw`` puts on a canvas of the report's width and ``height`` inches.

    Raises:
        BackendError: matplotlib is not installed.
    """
    with needs("profile"):
        import matplotlib
        from matplotlib.figure import Figure
    file = io.StringIO()
    with matplotlib.rc_context(_settings(name)), warnings.catch_warnings():
        # The reader's browser brings the font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(canvas)
        unsaid = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(file, format="svg", transparent=True, metadata=unsaid)
    return inline(file.getvalue(), name, title, {stand_in: key for key, stand_in in _STAND_INS.items()})


def line_style(style: Style) -> dict[str, Any]:
    """How lines of a candidate look."""
    return {"color": colour(style.colour), "linestyle": style.line}


def point_style(style: Style) -> dict[str, Any]:
    """How points of a candidate look."""
    return {"color": colour(style.colour), "marker": style.marker, "linestyle": "none"}


def tell(artist: Any, what: str) -> None:
    """Show ``what`` where somebody points at it."""
    artist.set_gid(TIP + clean(what))


def legend(canvas: Canvas, axes: Axes, columns: int = 3) -> None:
    """Above the plot, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        fit = _LETTERS // (max(map(len, labels)) + _HANDLE)
        canvas.legend(handles, labels, loc="outside upper left", ncols=max(1, min(columns, fit)), frameon=False)


def logarithmic(axis: Any) -> None:
    """Plain numbers at the powers of ten, and at 2 and 5 times these where there is room."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    wide = high > 1e4 * max(low, 1e-300)
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def lines(axes: Axes, names: Sequence[str]) -> None:
    """Give each line its name, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def panels(canvas: Canvas, count: int, label: str, **shared: bool) -> Sequence[Axes]:
    """So many plots, two beside each other, with the label of what goes up at the left ones."""
    columns = min(2, count)
    found = canvas.subplots(-(-count // columns), columns, squeeze=False, **shared).ravel()
    for axes in found[:count:columns]:
        axes.set_ylabel(label)
    for axes in found[max(count - columns, 0) : count]:
        axes.tick_params(labelbottom=True)
    for axes in found[count:]:
        axes.set_visible(False)
    return list(found[:count])


def stacked(canvas: Canvas, heights: Sequence[float]) -> Sequence[Axes]:
    """Plots below each other over the same values."""
    shape = {"height_ratios": heights}
    return list(canvas.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw=shape).ravel())


def from_zero(axes: Axes, most: float, spare: float = 1.12) -> None:
    """Begin the lower axis at 0, with room behind the last mark."""
    axes.set_xlim(0, spare * most if most > 1e-9 else 1.0)


def beside(axes: Axes, at: float, place: float, text: str) -> None:
    """A word to the right of a point."""
    axes.annotate(text, (at, place), (5, 0), textcoords="offset points", va="center")


def _settings(name: str) -> Any:
    ink, muted, faint = colour("ink"), colour("muted"), colour("faint")
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.size": 11,
        "font.family": "DejaVu Sans",
        "text.color": ink,
        "axes.labelcolor": ink,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "axes.edgecolor": muted,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": faint,
        "grid.linewidth": 0.8,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "legend.fontsize": 10,
        "hatch.linewidth": 0.8,
        "lines.linewidth": 1.8,
        "lines.markersize": 7,
    }
