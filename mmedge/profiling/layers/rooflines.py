"""Roofs of bundles measured here and now, outside of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.bundle import Bundle
from mmedge.errors import BackendError
from mmedge.profiling.layers.engine_profiles import stages_us
from mmedge.profiling.layers.peaks import peaks
from mmedge.profiling.layers.probes import PRECISIONS
from mmedge.profiling.layers.recorded import STAGES, engines_of, recorded_of
from mmedge.profiling.layers.reference import reference
from mmedge.profiling.layers.roofline import excesses, kinds_of, parts_of, roof
from mmedge.profiling.run import Flag, Peaks, Roof

Say = Callable[[str], None]
Roofs = tuple[Peaks, tuple[Roof, ...], list[str], tuple[Flag, ...]]
"""Peaks, roofs, what is measured by its number, and reasons for doubt."""


def measured_roofs(bundles: Sequence[Bundle], backend: str | None, threads: int, say: Say = lambda line: None) -> Roofs:
    """Of the first golden sample of each bundle.

    Raises:
        UsageError: a bundle has none.
        BackendError: an engine is missing or refuses a graph.
    """
    engines = [engines_of(bundle, backend) for bundle in bundles]
    names = [{component: engine.name for component, engine in each.items()} for each in engines]
    kinds = [kind for bundle, each in zip(bundles, names, strict=True) for kind in kinds_of(bundle, each)]
    found = peaks(kinds, threads, say)
    roofs: list[Roof] = []
    for c, bundle in enumerate(bundles):
        (asked,) = recorded_of(bundle)[:1]
        say(f"{bundle.path.name}: time")
        times = stages_us(bundle, engines[c], threads, [asked])
        say(f"{bundle.path.name}: what it has to compute")
        seen = reference(bundle, asked)
        for stage in STAGES:
            measured_ms = sum(us for (_, name), us in times.items() if name == stage) / 1e3
            if parts := parts_of(bundle, names[c], seen, stage, len(asked.written)):
                roofs.append(roof(c, stage, parts, measured_ms, found))
    told = [
        f"{bundle.path.name} on {'+'.join(dict.fromkeys(each.values()))}"
        for bundle, each in zip(bundles, names, strict=True)
    ]
    return found, tuple(roofs), told, excesses(roofs, told)


def machine_peaks(backend: str | None, threads: int, say: Say = lambda line: None) -> Peaks:
    """Of one engine, or of all that are installed and compile a product in float32; precisions that an engine cannot
    compute are left out.

    Raises:
        BackendError: the engine is missing.
    """
    engines = [backend] if backend else [name for name in find.names("backends") if _is_there(name)]
    if backend:
        find.backend(backend).version()
    found = peaks([], threads, say)
    for engine in engines:
        for precision in PRECISIONS:
            try:
                more = peaks([(engine, precision, False)], threads, say, memory=found)
            except BackendError as error:
                say(f"{engine} {precision}: {error}")
                continue
            found = replace(more, gemm_gflops=found.gemm_gflops | more.gemm_gflops)
    return found


def _is_there(engine: str) -> bool:
    try:
        find.backend(engine).version()
    except BackendError:
        return False
    return True
