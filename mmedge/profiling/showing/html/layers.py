"""Layer by layer: time, difference to the baseline, and what is lost."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from mmedge.profiling.run import Layer, Run
from mmedge.profiling.showing.html.candidates import label_of, legend_label, style_of
from mmedge.profiling.showing.html.draw import Canvas, colour, drawn, from_zero, legend, lines, point_style, tell
from mmedge.profiling.showing.html.figures import Absent, Figure
from mmedge.profiling.showing.html.tables import Cell, table
from mmedge.profiling.showing.html.text import clean, number, percent

NAME, TITLE = "layers", "Layers"
MOST_DRAWN, MOST_TOLD = 16, 120
_HEADS = ("layers", "component", "candidate", "µs", "share", "by the first, µs", "SNR, dB", "of the roof")


class Group(Struct, frozen=True):
    """What does the same in every candidate: layers that share nodes of the graph, directly or through others."""

    component: str
    name: str
    layers: dict[int, list[Layer]]
    """By candidate."""

    def us(self, c: int) -> float:
        return sum(layer.us for layer in self.layers.get(c, ()))

    @property
    def most(self) -> float:
        return max(map(self.us, self.layers))


def figure(run: Run) -> Figure | Absent:
    """The dearest groups, one line each."""
    if not run.layers:
        return Absent(NAME, TITLE, "Layers were not measured: --layers brings them, or `mmedge layers`.")
    groups = sorted(grouped(run), key=lambda group: -group.most)
    base = min(layer.c for layer in run.layers)
    shown = groups[:MOST_DRAWN]
    return Figure(
        NAME,
        TITLE,
        "Each line is what one part of the graph takes on every candidate, the dearest first: points far apart are "
        "where the difference is made, and a low SNR in the table is where accuracy goes.",
        drawn(NAME, TITLE, lambda canvas: _draw(run, shown, canvas), height=1.4 + 0.36 * len(shown)),
        table(_HEADS, (row for group in groups[:MOST_TOLD] for row in _rows(run, group, base))),
        note=_note(groups, label_of(run, base)),
    )


def grouped(run: Run) -> list[Group]:
    """Layers of all candidates by the nodes that they stand for."""
    of_node: dict[tuple[str, str], list[Layer]] = {}
    for layer in run.layers:
        members = [layer]
        for name in layer.onnx_names or (layer.node,):
            members += [other for other in of_node.get((layer.component, name), []) if other not in members]
        for member in members:
            for name in member.onnx_names or (member.node,):
                of_node[member.component, name] = members
    unique = {id(members): members for members in of_node.values()}
    return [_group(members) for members in unique.values()]


def _group(members: list[Layer]) -> Group:
    layers: dict[int, list[Layer]] = {}
    for layer in members:
        layers.setdefault(layer.c, []).append(layer)
    names = dict.fromkeys(name for layer in members for name in (layer.onnx_names or (layer.node,)))
    first, rest = next(iter(names)), len(names) - 1
    return Group(members[0].component, f"{first} +{rest}" if rest else first, layers)


def _draw(run: Run, groups: list[Group], canvas: Canvas) -> None:
    axes = canvas.subplots()
    for c in sorted({c for group in groups for c in group.layers}):
        axes.plot([], [], **point_style(style_of(run, c)), label=legend_label(run, c))
    for place, group in enumerate(groups):
        times = [group.us(c) for c in group.layers]
        axes.plot([min(times), max(times)], [place, place], color=colour("muted"), lw=1)
        for c in group.layers:
            (mark,) = axes.plot([group.us(c)], [place], **point_style(style_of(run, c)))
            tell(mark, f"{label_of(run, c)}: {number(group.us(c))} µs")
    lines(axes, [_end(group.name) for group in groups])
    from_zero(axes, max(group.most for group in groups))
    axes.set_xlabel("µs of an answer")
    legend(canvas, axes)


def _end(name: str, most: int = 46) -> str:
    """Names of nodes differ at their ends."""
    line = clean(name)
    return line if len(line) <= most else f"…{line[1 - most :]}"


def _rows(run: Run, group: Group, base: int) -> Iterator[list[Cell]]:
    for c, layers in sorted(group.layers.items()):
        lowest = min((layer.snr_db for layer in layers if layer.snr_db is not None), default=None)
        delta = group.us(c) - group.us(base) if c != base and base in group.layers else None
        roofs = [layer.roof for layer in layers if layer.roof is not None]
        told: list[Cell] = [group.name, group.component, label_of(run, c), group.us(c)]
        share = percent(sum(layer.share for layer in layers))
        yield [*told, share, delta, lowest, percent(max(roofs)) if roofs else None]


def _note(groups: list[Group], base: str) -> str:
    said = (
        f"Measured apart from the rounds, the overhead of profiling scaled away. The first is {base}; layers that an "
    )
    said += "engine fused stand in one line with all that share their nodes."
    drawn_, told = min(len(groups), MOST_DRAWN), min(len(groups), MOST_TOLD)
    return said + f" {drawn_} of {len(groups)} are drawn, {told} are in the table."
