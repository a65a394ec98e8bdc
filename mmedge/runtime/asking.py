"""The golden samples asked of what was compiled: who disagrees is refused, who agrees is marked as checked."""

from __future__ import annotations

from collections.abc import Callable

from mmedge.core.backend import Backend
from mmedge.core.bundle import Bundle
from mmedge.errors import BundleError, ResourceError
from mmedge.runtime.ready import entry, replaying
from mmedge.runtime.verify import Check, Verification, verify


def check_samples(bundle: Bundle) -> None:
    """
    Raises:
        BundleError: nothing can tell whether what is compiled is right.
    """
    if not bundle.manifest.golden:
        raise BundleError(
            f"bundle `{bundle.path}` has no golden samples: what is compiled of it cannot be checked",
            hint="export the bundle again; or choose an engine that opens it as it is, with --backend onnxruntime",
        )


def replay(bundle: Bundle, engines: dict[str, Backend], threads: int, progress: Callable[[str], None]) -> Verification:
    """The samples asked of these engines, and no others.

    Raises:
        ResourceError: another engine answered instead.
    """
    names = {component: engine.name for component, engine in engines.items()}
    only = next(iter(names.values())) if len({*names.values()}) == 1 else None
    with replaying():
        found = verify(bundle, backend=only, threads=threads, progress=progress)
    for component, name in names.items():
        if (answered := found.backends[component]) != name:
            raise ResourceError(
                f"`{component}` cannot be opened by {name} beside the other graphs: {answered} answered instead",
                hint="end what else runs, and try again",
            )
    return found


def mark(bundle: Bundle, engines: dict[str, Backend], found: Verification, refused: dict[str, str]) -> None:
    """Remember which answered as they should."""
    wrong = {check.what for check in found.checks if not check.passed} | refused.keys()
    for graph in bundle.manifest.graphs:
        kept = entry(bundle, graph, engines[graph.component])
        if kept and graph.component not in wrong:
            kept.mark_replayed()


def refuse(bundle: Bundle, engines: dict[str, Backend], found: Verification) -> dict[str, str]:
    """Remove what disagreed; if only the tokens did, what is run at each step."""
    disagreeing = {check.what: check for check in reversed(found.checks) if not check.passed}
    refused = {}
    for graph in bundle.manifest.graphs:
        check = disagreeing.get(graph.component)
        if not check and graph.role == "decode" and not _blamed(bundle, disagreeing):
            check = disagreeing.get("tokens")
        kept = entry(bundle, graph, engines[graph.component]) if check else None
        if check and kept:
            refused[graph.component] = _told(check)
            kept.refuse(refused[graph.component], wrong=True)
    return refused


def _blamed(bundle: Bundle, disagreeing: dict[str, Check]) -> bool:
    """Whether some graph is known to be what is wrong."""
    return any(graph.component in disagreeing for graph in bundle.manifest.graphs)


def _told(check: Check) -> str:
    what = "tokens: equal answers" if check.what == "tokens" else "cosine"
    note = f" {check.note}" if check.note else ""
    return f"{what} {check.value:.6g}{note} for {check.sample}, the bound is {check.bound:.6g}"
