"""Whether a bundle was made for the target, or for one like it."""

from __future__ import annotations

from collections.abc import Iterator

from mmedge.core.target import Target
from mmedge.export.check.findings import Finding
from mmedge.export.check.opened import Opened

FLOAT16_INSIDE = ("float16", "int8", "int8-weights", "int4-weights")
"""Precisions whose graphs are float16 around what is smaller, where the engine computes in the types of the graph."""


def check_fitting(opened: Opened, target: Target) -> Iterator[Finding]:
    """Precision, engine and edges of a graph are those that the target asks for."""
    graph, again = opened.graph, f"export the model again with --target {target.name}"
    if graph.precision not in target.precisions:
        message = f"its precision is {graph.precision}, `{target.name}` runs {', '.join(target.precisions)}"
        yield opened.finding("target/precision", "error", message, again)
    elif graph.precision in target.experimental:
        message = f"{graph.precision} has been measured by nobody on `{target.name}`"
        yield opened.finding("target/experimental", "warning", message, "compare speed and answers on the device")
    if not target.stacks and opened.opset > target.opset:  # with stacks, the tables say it
        message = f"operator set {opened.opset}, `{target.name}` reads up to {target.opset}"
        yield opened.finding("target/opset", "error", message, again)
    if target.typed:
        yield from _check_types(opened, again)


def _check_types(opened: Opened, again: str) -> Iterator[Finding]:
    graph = opened.graph
    if graph.precision == "float32":
        message = "it is float32 throughout: twice the memory of float16, and slow"
        yield opened.finding("target/float32", "warning", message, "export it with --precision float16")
    elif graph.precision in FLOAT16_INSIDE:
        types = {value.dtype.name for node in opened.nodes for value in node.outputs if value.dtype is not None}
        if "FLOAT16" not in types:
            message = f"it is called {graph.precision} and computes nothing in float16"
            yield opened.finding("target/float32", "warning", message, again)
        if graph.cache and graph.cache.dtype == "float32":
            message = "its cache is float32: twice the memory, and twice the time to read it"
            yield opened.finding("target/edges", "warning", message, again)
