"""What a bundle takes on the device: while its engines are built, one at a time, and while it runs.

The sums are estimates, each shown with how it was reckoned. Weights are the bytes of the files: an engine has those of
its graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmedge.core.manifest import Graph
from mmedge.core.target import Target
from mmedge.errors import UsageError
from mmedge.export.check.findings import Finding, MemoryPlan, Severity, Sum
from mmedge.export.check.host_memory import plan_run, runs_on_host
from mmedge.export.check.liveness import port_mib, working_mib
from mmedge.export.check.opened import Opened, is_fixed
from mmedge.export.decoder import MIB, SCRATCH
from mmedge.runtime.compile import TIMES_WEIGHTS

ENGINE_MB = {"tensorrt": (400, "assumed")}
"""Python, numpy and the libraries of the engine without any model. Assumed for TensorRT with CUDA: published runs of
models of less than 100 MB take 440 in all."""

OTHER_ENGINE_MB = (130, "measured with ONNX Runtime")

TIGHT = 0.9
"""Of the target's memory: a plan above it is doubted."""

MARGIN = 0.1
"""Of a context's values: what its kernels need besides, and the context itself. Only the engine could tell."""

CACHE_BUFFERS = 2
"""Read from one, write to the other."""


def plan_memory(graphs: Sequence[Opened], target: Target, length: int | None = None, vocabulary: int = 0) -> MemoryPlan:
    """Every sum that is known before the device is; ``length`` is that of a conversation in tokens, ``vocabulary`` that
    of its file in bytes.

    Raises:
        UsageError: no conversation can be of this length.
    """
    if runs_on_host(target):
        return MemoryPlan((), plan_run(graphs, target, length, vocabulary), target.memory_mb)
    if length is not None:
        raise UsageError(f"for `{target.name}` the room for a conversation is fixed when it is exported")
    base = Sum("engine libraries", *ENGINE_MB.get(target.backends.get("tower", ""), OTHER_ENGINE_MB))
    run = [base]
    for opened in graphs:
        run += _to_run(opened, graphs)
    return MemoryPlan(tuple(_to_build(graphs, target, base)) if target.stacks else (), tuple(run), target.memory_mb)


def check_memory(plan: MemoryPlan, target: Target) -> Iterator[Finding]:
    """Too much for the target, or nearly; each graph's share is in the plan."""
    hint = "choose a smaller precision, a smaller model or a larger target"
    for what, needed, parts in (("build", plan.build_mib, plan.build), ("run", plan.run_mib, plan.run)):
        largest = max(parts, key=lambda part: part.mib, default=None)
        if largest is None or needed <= TIGHT * target.memory_mb:
            continue
        severity: Severity = "error" if needed > target.memory_mb else "warning"
        message = f"to {what} takes about {needed:,.0f} MiB of {target.memory_mb:,}, most of it {largest.what}"
        yield Finding(f"memory/{what}", severity, "", message, hint)
    limit = target.options.get("builder_mb")
    if limit and plan.build_mib > int(limit):
        message = f"to build takes about {plan.build_mib:,.0f} MiB, a build may take {int(limit):,}"
        yield Finding("memory/builder", "error", "", message, "raise the target's option `builder_mb`, or " + hint)


def check_contiguous(opened: Opened, target: Target) -> Iterator[Finding]:
    """A product whose weight makes the builder ask for more in one piece than the device can give."""
    for node in opened.nodes if target.contiguous_mb else ():
        if node.op_type not in ("Gemm", "MatMul") or len(node.inputs) < 2 or (weight := node.inputs[1]) is None:
            continue
        shape = [size for size in weight.shape or () if isinstance(size, int)]
        if len(shape) != 2 or not is_fixed(weight):
            continue
        asked = shape[0] * shape[1] * 2 * SCRATCH / MIB
        if asked > target.contiguous_mb:
            message = (
                f"its weight {shape[0]} x {shape[1]} makes the builder ask for {asked:,.0f} MiB in one piece "
                f"({shape[0]} x {shape[1]} x 2 x {SCRATCH}), the device may have {target.contiguous_mb}"
            )
            hint = f"split it into {int(-(-asked // target.contiguous_mb))} products along its outputs"
            yield opened.finding("memory/contiguous", "error", message, hint, node)


def weights_mib(opened: Opened) -> float:
    """The graph and the files beside it."""
    return sum(path.stat().st_size for path in opened.files if path.is_file()) / MIB


def _to_build(graphs: Sequence[Opened], target: Target, base: Sum) -> Iterator[Sum]:
    """Engines are built one after the other, each in a process of its own: the largest decides."""
    largest = max(graphs, key=weights_mib)
    weights, workspace = weights_mib(largest), int(target.options.get("workspace_mb", 0))
    yield base
    yield Sum(f"weights of {largest.component}", TIMES_WEIGHTS * weights, f"{TIMES_WEIGHTS} x {weights:,.1f}")
    yield Sum("builder's workspace", workspace, "the target's option `workspace_mb`")


def _to_run(opened: Opened, graphs: Sequence[Opened]) -> Iterator[Sum]:
    graph = opened.graph
    yield Sum(f"weights of {graph.component}", weights_mib(opened), "bytes of its files")
    values = [*_values(opened)]
    yield from values
    times = f" of each of {len(values)} contexts" if len(values) > 1 else ""
    margin = MARGIN * sum(each.mib for each in values)
    yield Sum(f"margin of {graph.component}", margin, f"assumed: {MARGIN:.0%} of the values{times}, for kernels")
    if (cache := graph.cache) and cache.capacity:
        item = np.dtype(cache.dtype).itemsize
        slots = cache.layers * 2 * cache.heads * cache.capacity * cache.head_dim
        how = (
            f"{CACHE_BUFFERS} x {cache.layers} x 2 x {cache.heads} x {cache.capacity} x {cache.head_dim} x {item} bytes"
        )
        yield Sum(f"cache of {graph.component}", CACHE_BUFFERS * slots * item / MIB, how)
    made = {port.name for other in graphs for port in other.graph.outputs}
    held = [port for port in graph.inputs if port.name in made] if cache else []
    if held:
        largest = {word: size for profile in _largest(graph) for word, size in profile.items()}
        mib = sum(port_mib(port, largest) for port in held)
        yield Sum(f"held for {graph.component}", mib, f"{len(held)} outputs of other graphs")


def _values(opened: Opened) -> Iterator[Sum]:
    """Of each context: an engine has one for each profile."""
    component = opened.component
    for number, profile in enumerate(_largest(opened.graph), 1):
        sizes = opened.sized(profile)
        name = f"{component}, profile {number}" if len(opened.graph.profiles) > 1 else component
        yield Sum(f"values of {name}", working_mib(opened, sizes), _alive(opened, profile, sizes))


def _alive(opened: Opened, profile: Mapping[str, int], sizes: Mapping[str, object]) -> str:
    where = ", ".join(f"{word} {size}" for word, size in profile.items())
    unknown = sum(value.name not in sizes for node in opened.program.graph for value in node.outputs)
    return f"alive at once{f' at {where}' if where else ''}{f', {unknown} of unknown size' if unknown else ''}"


def _largest(graph: Graph) -> list[dict[str, int]]:
    """The largest sizes of each profile; a graph of fixed sizes has a single way to run."""
    return [{word: span.largest for word, span in profile.items()} for profile in graph.profiles] or [{}]
