"""Whether values that one graph hands to another are what the other reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mmedge.core.ports import Port
from mmedge.core.target import Target
from mmedge.export.check.findings import Finding
from mmedge.export.check.fitting import FLOAT16_INSIDE
from mmedge.export.check.opened import Opened


def check_edges(graphs: Sequence[Opened], target: Target) -> Iterator[Finding]:
    """Values flow by name from the outputs of a graph to the inputs of later ones."""
    made: dict[str, tuple[Opened, Port]] = {}
    for opened in graphs:
        for port in opened.graph.inputs:
            if port.name in made:
                yield from _check_edge(opened, port, *made[port.name], target)
        made.update({port.name: (opened, port) for port in opened.graph.outputs})


def _check_edge(opened: Opened, port: Port, maker: Opened, given: Port, target: Target) -> Iterator[Finding]:
    if given.dtype != port.dtype or not _fits(given.shape, port.shape):
        message = (
            f"its input `{port.name}` is {port.dtype} {list(port.shape)}, "
            f"`{maker.component}` gives {given.dtype} {list(given.shape)}"
        )
        yield opened.finding("ports/edge", "error", message, "export the bundle again")
    both = {opened.graph.precision, maker.graph.precision} <= set(FLOAT16_INSIDE)
    if target.typed and both and given.dtype == port.dtype == "float32":
        message = f"`{port.name}` is handed from `{maker.component}` in float32, between graphs of float16"
        hint = f"export the model again with --target {target.name}"
        yield opened.finding("target/edges", "warning", message, hint)


def _fits(given: Sequence[int | str], read: Sequence[int | str]) -> bool:
    pairs = zip(given, read, strict=False)
    return len(given) == len(read) and all(str in (type(one), type(other)) or one == other for one, other in pairs)
