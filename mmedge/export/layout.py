"""What the graphs of a bundle look like at their edges: ports, cache, ranges of sizes, and what is float16 there."""

from __future__ import annotations

from collections.abc import Iterable

from mmedge.core.bundle import Graph
from mmedge.core.family import Component
from mmedge.core.plan import Plan
from mmedge.core.ports import Port, Span
from mmedge.export.decoder import TOKEN
from mmedge.export.quantize import in_half

ONE = Span(1, 1, 1)


def plan_graph(component: Component) -> Graph:
    """The manifest's entry of a component's float32 graph."""
    chooses = component.cache is not None and component.cache.capacity > 0
    outputs = (TOKEN, *component.outputs) if chooses else component.outputs
    file = f"graphs/{component.name}.onnx"
    return Graph(component.name, file, component.inputs, outputs, "float32", component.cache, profiles(component))


def profiles(component: Component) -> tuple[dict[str, Span], ...]:
    """One set of ranges; of a decoder two, for a step of one token and for a prompt.

    An engine that is built for both holds its weights once, and is tuned for the step that is run for every token.
    """
    ports = (*component.inputs, *(component.cache.past() if component.cache else ()))
    words = {size for port in ports for size in port.shape if isinstance(size, str)} & component.sizes.keys()
    sizes = {word: component.sizes[word] for word in sorted(words)}
    if component.cache and "length" in sizes:
        return {**sizes, "length": ONE}, sizes
    return (sizes,) if sizes else ()


def inner_edges(plan: Plan) -> dict[str, set[str]]:
    """Inputs and outputs of each component that are float16: caches, and what float16 graphs hand to float16 graphs."""
    half = {
        component.name
        for component in plan.components
        if plan.target.typed and in_half(plan.choices[component.name].precision, plan.target)
    }
    makers = {port.name: component.name for component in plan.components for port in component.outputs}
    exact = {  # what a float32 graph makes or reads
        port.name
        for component in plan.components
        if component.name not in half
        for port in (*component.inputs, *component.outputs)
    }
    handed = {
        port.name
        for component in plan.components
        for port in component.inputs
        if port.name in makers and port.dtype == "float32"
    } - exact
    return {
        component.name: {port.name for port in _edges(component) if port.name in handed} | _cache_edges(component)
        if component.name in half
        else set()
        for component in plan.components
    }


def _edges(component: Component) -> Iterable[Port]:
    return (*component.inputs, *component.outputs)


def _cache_edges(component: Component) -> set[str]:
    shape = component.cache
    return {port.name for port in (*shape.past(), *shape.present())} if shape else set()
