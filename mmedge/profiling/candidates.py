"""What is compared: bundles on engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

from mmedge.core import find
from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.names import shown
from mmedge.errors import UsageError
from mmedge.profiling.report import Candidate


def candidates_of(bundles: Sequence[Path], backends: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """Every bundle on every engine, or without ``backends`` each on those that its target names.

    Raises:
        UsageError: there is no such bundle or engine.
        BundleError: a manifest is damaged.
        BackendError: a target names an engine that this version lacks.
    """
    if not bundles:
        raise UsageError("no bundle is given", hint="mmedge profile BUNDLE --backends onnxruntime,openvino")
    for backend in backends:
        find.backend(backend)
    opened = [open_bundle(path) for path in bundles]
    return tuple(_told_apart([_candidate(bundle, backend) for bundle in opened for backend in backends or (None,)]))


def twin(candidate: Candidate) -> Candidate:
    """The same candidate under another name: what seems to set the two apart is chance."""
    return replace(candidate, name=f"{candidate.name} again")


def _candidate(bundle: Bundle, backend: str | None) -> Candidate:
    manifest = bundle.manifest
    engines = dict.fromkeys(backend or manifest.target.backends[graph.role] for graph in manifest.graphs)
    for engine in () if backend else engines:
        find.engine(engine, "--backends")
    return Candidate(
        name=f"{bundle.path.resolve().name.removesuffix('.bundle')} {'+'.join(engines)}",
        bundle=_text(bundle.path),
        digest=bundle.digest,
        backend=backend,
        precisions={graph.component: graph.precision for graph in manifest.graphs},
        size=sum(file.size for file in manifest.files.values()),
    )


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
