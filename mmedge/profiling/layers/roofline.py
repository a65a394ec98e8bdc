"""How close each stage comes to what the machine can do: the larger of the time that its products need at the engine's
best, and the time that its bytes need to come from memory.

Products with quantized weights and the others of a graph have each their own peak. A share above 1 can be right where
everything fits the cache; otherwise something is counted wrongly, or was measured while the machine did something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmedge.core.bundle import Bundle, open_bundle
from mmedge.profiling.layers.peaks import Kind, key, moving_s, peaks_of_all, with_threads
from mmedge.profiling.layers.recorded import STAGES, Recorded, prompt_of
from mmedge.profiling.layers.reference import Reference, reference
from mmedge.profiling.run import Candidate, Flag, Input, Peaks, Roof, Sample

TOO_MUCH = 1.05
"""A share that only a mistake, or a cache, explains; it is kept, but says nothing."""

Say = Callable[[str], None]


class Part(NamedTuple):
    """What one graph does in a stage."""

    engine: str
    precision: str
    quantized_flops: int
    rest_flops: int
    read: int
    """Bytes."""
    written: int
    footprint: int
    """Bytes that one run of it touches."""


def parts_of(bundle: Bundle, engines: Mapping[str, str], found: Reference, stage: str, steps: int) -> list[Part]:
    """Of the graphs that run in the stage, for an answer of so many steps; ``engines`` by component."""
    parts = []
    for graph in bundle.manifest.graphs:
        total, one = (found.total(graph.component, stage, count) for count in (steps, 1))
        if total and one:
            engine = engines[graph.component]
            flops = total.quantized_flops, total.rest_flops
            parts.append(Part(engine, graph.precision, *flops, total.read, total.written, one.read + one.written))
    return parts


def compute_s(found: Peaks, part: Part) -> float:
    """Seconds that its products need at least."""
    quantized = found.gemm_gflops[key(part.engine, part.precision)]
    rest = found.gemm_gflops[key(part.engine, part.precision, rest=True)]
    return (part.quantized_flops / quantized + part.rest_flops / rest) / 1e9


def roof(
    c: int,
    stage: str,
    parts: Sequence[Part],
    measured_ms: float,
    found: Peaks,
    *,
    asked: int | None = None,
    n: int = 0,
) -> Roof:
    """Of a stage in which these graphs run; ``asked`` is the input that was answered ``n`` times."""
    computing = sum(compute_s(found, part) for part in parts)
    read, written = sum(part.read for part in parts), sum(part.written for part in parts)
    moving = sum(moving_s(found, part.engine, part.read, part.written) for part in parts)
    ceiling_ms = max(computing, moving) * 1e3
    share, in_cache = ceiling_ms / measured_ms, sum(part.footprint for part in parts) < found.cache
    return Roof(
        c=c,
        stage=stage,
        flops=float(sum(part.quantized_flops + part.rest_flops for part in parts)),
        bytes=float(read + written),
        ceiling_ms=ceiling_ms,
        measured_ms=measured_ms,
        share=share,
        bound="compute" if computing > moving else "bandwidth",
        in_cache=in_cache,
        valid=share <= TOO_MUCH or in_cache,
        input=asked,
        n=n,
    )


def roofline(
    candidates: Sequence[Candidate],
    items: Sequence[Input],
    samples: Iterable[Sample],
    limit: int | None = None,
    say: Say = lambda line: None,
) -> tuple[Peaks | None, tuple[Roof, ...]]:
    """Peaks, and how close each candidate's stages come to those with its own number of threads in ``samples``, of
    which the input is taken that was answered most often; ``limit`` is the longest answer that was allowed. Candidates
    that are other programs are left out.

    Raises:
        BackendError: ONNX Runtime is missing.
    """
    own = {c: open_bundle(Path(each.bundle)) for c, each in enumerate(candidates) if not each.command}
    if not own:
        return None, ()
    asked = _most_asked(samples)
    kinds = [(candidates[c].threads, kinds_of(bundle, candidates[c].engines)) for c, bundle in own.items()]
    found = peaks_of_all(kinds, say)
    roofs: list[Roof] = []
    seen: dict[str, Reference] = {}
    for c, bundle in own.items():
        if not (chosen := [sample for sample in asked if sample.c == c]):
            continue
        item = items[chosen[0].input]
        if bundle.digest not in seen:
            say(f"roofline: what {candidates[c].name} has to compute")
            seen[bundle.digest] = reference(bundle, _as_recorded(bundle, item))
        limits = with_threads(found, candidates[c].threads)
        roofs += _roofs(c, bundle, candidates[c].engines, seen[bundle.digest], chosen, limit, limits)
    return found, tuple(roofs)


def kinds_of(bundle: Bundle, engines: Mapping[str, str]) -> list[Kind]:
    """Products whose peaks a bundle asks for on these engines, by component."""
    return [
        (engines[graph.component], graph.precision, b"MatMulNBits" in bundle.read(graph.file))
        for graph in bundle.manifest.graphs
    ]


def excesses(roofs: Iterable[Roof], names: Sequence[str]) -> tuple[Flag, ...]:
    """Where a stage is faster than it can be; ``names`` are those of the candidates."""
    return tuple(
        Flag(
            "above_roof",
            "warning",
            f"{names[each.c]} does `{each.stage}` at {each.share:.0%} of what the machine can do, which cannot be: the "
            "machine was busier while its peaks were measured, or its work is counted wrongly",
            "measure again when it is idle; if it stays, report it as a mistake of mmedge",
        )
        for each in roofs
        if not each.valid
    )


def _roofs(
    c: int,
    bundle: Bundle,
    engines: Mapping[str, str],
    seen: Reference,
    samples: Sequence[Sample],
    limit: int | None,
    found: Peaks,
) -> Iterable[Roof]:
    steps = round(float(np.median([_steps(sample, limit) for sample in samples])))
    for stage in STAGES:
        measured = [sample.stages_ns[stage] for sample in samples if sample.stages_ns.get(stage)]
        if measured and (parts := parts_of(bundle, engines, seen, stage, steps)):
            median_ms = float(np.median(measured)) / 1e6
            yield roof(c, stage, parts, median_ms, found, asked=samples[0].input, n=len(measured))


def _steps(sample: Sample, limit: int | None) -> int:
    """The last token of an answer that was cut off is not read again; what ends the others is a token too."""
    return len(sample.token_ns) - (len(sample.token_ns) == limit)


def _most_asked(samples: Iterable[Sample]) -> list[Sample]:
    """Of several as often asked the first one of the run's."""
    counted = [sample for sample in samples if sample.phase == "round"]
    asked = Counter(sample.input for sample in counted)
    most = min(asked, key=lambda each: (-asked[each], each), default=None)
    return [sample for sample in counted if sample.input == most]


def _as_recorded(bundle: Bundle, item: Input) -> Recorded:
    """What is written does not change what a step costs."""
    prompt = prompt_of(bundle, Path(item.file), item.text)
    return Recorded(item.id, prompt, (int(prompt.tokens[-1]),) * 2)
