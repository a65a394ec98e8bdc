"""All checks of a bundle, or of graphs that are about to become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from mmedge.core.bundle import Bundle
from mmedge.core.manifest import Graph
from mmedge.core.target import Target
from mmedge.export.check.attention import check_attention
from mmedge.export.check.edges import check_edges
from mmedge.export.check.ends import check_ends
from mmedge.export.check.findings import Finding, Findings, Found, gather
from mmedge.export.check.fitting import check_fitting
from mmedge.export.check.memory import check_contiguous, check_memory, plan_memory
from mmedge.export.check.opened import Opened, open_graph
from mmedge.export.check.operators import check_operators, check_values
from mmedge.export.check.profiles import check_profiles
from mmedge.export.check.qdq import check_blocks, check_quantization
from mmedge.export.check.ranges import FOLDER, check_ranges, measure_headroom, read_ranges
from mmedge.export.check.shape import check_format, check_ports
from mmedge.export.check.table import table

BLOCKING = {"format/invalid", "format/weights"}
"""After one of these nothing else can be said of a graph."""


def check_bundle(bundle: Bundle, target: Target | None = None, length: int | None = None) -> Findings:
    """What would fail on ``target``, or on the one that the bundle was made for, in conversations of ``length`` tokens.

    Raises:
        BundleError: a file of the bundle is damaged.
        UsageError: no conversation can be of this length.
    """
    manifest, target = bundle.manifest, target or bundle.manifest.target
    for name in manifest.files:  # what is judged is what was exported
        if name.endswith(".onnx") or name.startswith(f"{FOLDER}/"):
            bundle.file(name)
    vocabulary = manifest.files[manifest.assets["tokenizer"]].size
    findings = check_graphs(manifest.graphs, bundle.path, target, length, vocabulary)
    if manifest.target.name == target.name:
        return findings
    message, hint = f"it was exported for `{manifest.target.name}`", f"export the model with --target {target.name}"
    note = Finding("target/other", "note", "", message, hint, stacks=tuple(stack.name for stack in target.stacks))
    return replace(findings, found=(*findings.found, note))


def check_graphs(
    graphs: Sequence[Graph], folder: Path, target: Target, length: int | None = None, vocabulary: int = 0
) -> Findings:
    """What would fail on ``target`` of graphs whose files lie in ``folder`` as the manifest will say; the last two as
    `plan_memory` takes them.

    Raises:
        BundleError: a file is no ONNX graph.
    """
    opened = [open_graph(graph, folder / graph.file) for graph in graphs]
    memory = plan_memory(opened, target, length, vocabulary)
    found = [found for each in opened for found in _check(each, folder, target)]
    found += map(Found, check_edges(opened, target))
    found += map(Found, check_memory(memory, target))
    names = tuple(graph.component for graph in graphs)
    half = (measure_headroom(each, read_ranges(folder, each.component)) for each in opened)
    float16 = tuple(each for each in half if each is not None)
    return Findings(target.name, target.stacks, names, gather(found, target), memory, float16)


def _check(opened: Opened, folder: Path, target: Target) -> Iterator[Found]:
    malformed = list(check_format(opened))
    yield from map(Found, malformed)
    yield from map(Found, check_ports(opened))
    yield from map(Found, check_fitting(opened, target))
    if target.stacks and not BLOCKING & {finding.check for finding in malformed}:
        yield from _check_for_engine(opened, folder, target)


def _check_for_engine(opened: Opened, folder: Path, target: Target) -> Iterator[Found]:
    """What an engine would be built of; only of sound graphs."""
    for stack in target.stacks:
        for versioned in (check_operators, check_blocks):
            yield from (Found(finding, stack.name) for finding in versioned(opened, table(stack.operators)))
    for common in (check_values, check_quantization, check_profiles, check_contiguous):
        yield from map(Found, common(opened, target))
    for quantized in (check_attention, check_ends):
        yield from map(Found, quantized(opened))
    yield from map(Found, check_ranges(opened, read_ranges(folder, opened.component)))
