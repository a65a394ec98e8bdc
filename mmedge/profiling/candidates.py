"""What is compared: bundles on engines with numbers of threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.names import shown
from mmedge.errors import UsageError
from mmedge.profiling.run import Candidate

AGAIN = " again"


def candidates_of(
    bundles: Sequence[Path],
    backends: Sequence[str] = (),
    *,
    precisions: Sequence[str] = (),
    threads: Sequence[int] = (0,),
) -> tuple[Candidate, ...]:
    """Every bundle on every engine with every number of threads.

    Args:
        bundles: folders that `mmedge export` wrote.
        backends: engines; without them each bundle runs on those that its target names.
        precisions: only bundles with a component in one of these; without them all.
        threads: 0 means all cores.

    Raises:
        UsageError: there is no such bundle or engine.
        BundleError: a manifest is damaged.
        BackendError: a target names an engine that this version lacks.
    """
    if not bundles:
        raise UsageError("no bundle is given", hint="mmedge profile BUNDLE --backend onnxruntime,openvino")
    for backend in backends:
        find.backend(backend)
    opened = _chosen([open_bundle(path) for path in bundles], precisions)
    everyone = (_candidate(bundle, backend, n) for bundle in opened for backend in backends or (None,) for n in threads)
    return tuple(_told_apart([_named(candidate, threads) for candidate in everyone]))


def twin(candidate: Candidate) -> Candidate:
    """The same candidate under another name: what seems to set the two apart is chance."""
    return replace(candidate, name=f"{candidate.name}{AGAIN}")


def _chosen(bundles: Sequence[Bundle], precisions: Sequence[str]) -> list[Bundle]:
    found = {graph.precision for bundle in bundles for graph in bundle.manifest.graphs}
    for precision in precisions:
        if precision not in found:
            raise UsageError(
                f"no bundle has a component in `{shown(precision)}`", hint=f"there are: {', '.join(sorted(found))}"
            )
    wanted = {*precisions} or found
    return [bundle for bundle in bundles if any(graph.precision in wanted for graph in bundle.manifest.graphs)]


def _candidate(bundle: Bundle, backend: str | None, threads: int) -> Candidate:
    manifest = bundle.manifest
    engines = dict.fromkeys(backend or manifest.target.backends[graph.role] for graph in manifest.graphs)
    for engine in () if backend else engines:
        find.engine(engine, "--backend")
    return Candidate(
        name=f"{bundle.path.resolve().name.removesuffix('.bundle')} {'+'.join(engines)}",
        bundle=_text(bundle.path),
        digest=bundle.digest,
        backend=backend,
        precisions={graph.component: graph.precision for graph in manifest.graphs},
        size=sum(file.size for file in manifest.files.values()),
        threads=threads,
    )


def _named(candidate: Candidate, threads: Sequence[int]) -> Candidate:
    """With the number of threads where that is what sets candidates apart."""
    return replace(candidate, name=f"{candidate.name} {candidate.threads}t") if len(threads) > 1 else candidate


def _text(path: Path) -> str:
    """The path as a report can hold it."""
    try:
        return path.resolve().as_posix().encode().decode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the path `{shown(str(path))}` is not UTF-8", hint="rename it") from error


def _told_apart(candidates: Iterable[Candidate]) -> Iterator[Candidate]:
    """The second of the same name gets a number."""
    seen: Counter[str] = Counter()
    for candidate in candidates:
        seen[candidate.name] += 1
        count = seen[candidate.name]
        yield candidate if count == 1 else replace(candidate, name=f"{candidate.name} ({count})")
