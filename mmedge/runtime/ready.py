"""Compiled graphs of a bundle for this device, made once and kept beside it.

They lie in ``<bundle>.ready/<component>-<backend>-<key>/``, where the key stands for everything that went into them:
the bundle with its target's options, the backend with its version, the processor, and what else the backend is tied to
(of TensorRT the GPU's compute capability and Jetson Linux). Where that place cannot be written, they are kept in the
user's cache folder, and a warning says so (`runtime.kept`). Folders made by other versions stay: ``<bundle>.ready`` may
be deleted at any time.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import msgspec

from mmedge.core.backend import Backend, Options
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.ledger import spent, tell_compiled
from mmedge.core.writing import check_space
from mmedge.errors import BackendError, MmedgeError, QualityError, ResourceError
from mmedge.runtime import kept
from mmedge.runtime.building import BuildKilled, build_apart
from mmedge.runtime.device import this_device
from mmedge.runtime.kept import Refusal

_log = logging.getLogger(__name__)
_replaying: ContextVar[bool] = ContextVar("_replaying", default=False)

Build: TypeAlias = Callable[[Backend, Graph, Path, Path, Options], Path]
"""``build(backend, graph, source, output, options)`` compiles as `Backend.compile` does."""


@dataclass(frozen=True)
class Entry:
    """What one graph becomes on this device with one backend."""

    bundle: Bundle
    graph: Graph
    backend: Backend
    made_for: dict[str, str]

    @property
    def name(self) -> str:
        key = _digest(msgspec.json.encode(self.made_for, order="sorted"))[:16]
        return f"{self.graph.component}-{self.backend.name}-{key}"

    def folder(self) -> Path:
        """Where it is, or else where it is to be."""
        places = kept.places(self.bundle)
        there = [place for place in places if os.path.exists(place / self.name)]
        usable = [place for place in places if kept.usable(place)]
        return next(iter((*there, *usable, *places))) / self.name

    def artifact(self) -> Path | None:
        """The file to open, if it was made and is as it was made."""
        found = (kept.stored(place / self.name, self.made_for) for place in kept.places(self.bundle))
        return next(filter(None, found), None)

    def refusal(self) -> Refusal | None:
        """Why it is not to be used, unless it may be."""
        found = (kept.refusal(place / self.name) for place in kept.places(self.bundle))
        return next(filter(None, found), None)

    def make(self, build: Build) -> Path:
        """Compile it, unless another process has just done so.

        Raises:
            BackendError: the engine is missing or refuses the graph.
            BundleError: the graph's files are not what the bundle's manifest says.
            ResourceError: there is no place to keep it, or it takes too much memory.
        """
        source = self.bundle.file(self.graph.file)
        options = self.bundle.manifest.target.options
        with kept.place_to_write(self.bundle) as place:
            if artifact := kept.stored(place / self.name, self.made_for):
                return artifact
            check_space(place, size_of(self.bundle, self.graph))
            with spent("compile"):
                return kept.store(
                    place / self.name,
                    self.made_for,
                    lambda draft: build(self.backend, self.graph, source, draft, options),
                )

    def refuse(self, reason: str, *, wrong: bool) -> None:
        """Remove it, and have everyone who wants it told ``reason``, until `forgive`. It was ``wrong``, or could not be
        made or opened."""
        try:
            with kept.place_to_write(self.bundle) as place:
                kept.refuse(place / self.name, Refusal(reason, wrong))
        except (OSError, ResourceError) as error:
            _log.warning("it cannot be remembered that `%s` was refused: %s", self.name, error)
        self.discard()

    def discard(self) -> None:
        """Remove it, as far as it is ours."""
        for place in kept.places(self.bundle):
            kept.discard(place / self.name)

    def mark_replayed(self) -> None:
        """Remember that it answered the golden samples as it should."""
        for folder in self._stored_in():
            try:
                kept.mark_replayed(folder)
            except OSError as error:
                _log.warning("it cannot be remembered that `%s` was checked: %s", folder, error.strerror)

    def was_replayed(self) -> bool:
        """Whether the golden samples were asked of what `artifact` gives."""
        return any(kept.was_replayed(folder) for folder in self._stored_in())

    def _stored_in(self) -> list[Path]:
        """The folder that `artifact` lies in, if there is one."""
        folders = (place / self.name for place in kept.places(self.bundle))
        return list(islice((folder for folder in folders if kept.stored(folder, self.made_for)), 1))

    def forgive(self) -> None:
        """Forget that it was refused."""
        for place in kept.places(self.bundle):
            kept.forgive(place / self.name)


def entry(bundle: Bundle, graph: Graph, backend: Backend) -> Entry | None:
    """What is kept of ``graph`` for this device; None if the backend opens the ONNX file as it is.

    Raises:
        BackendError: the engine is missing.
    """
    if not backend.compiles(graph):
        return None
    device = this_device()
    made_for = {
        "bundle": bundle.digest,
        "component": graph.component,
        "backend": f"{backend.name} {backend.version()}",
        "compiler": _digest(b"".join(path.read_bytes() for path in _code(backend))),
        "device": f"{device.name}, {device.arch}",
        "processor": device.processor,
        **backend.tied_to(),
    }
    return Entry(bundle, graph, backend, made_for)


def ready(bundle: Bundle, graph: Graph, backend: Backend) -> Path:
    """The file that ``backend.open`` takes for ``graph`` on this device, compiled now if it never was.

    Raises:
        BackendError: the engine is missing, or refuses the graph, now or once before.
        BundleError: the graph's files are not what the bundle's manifest says.
        QualityError: it was compiled here, and answered wrongly.
        ResourceError: there is no place to keep what is compiled, or compiling it takes too much memory.
    """
    wanted = entry(bundle, graph, backend)
    if not wanted:
        return bundle.file(graph.file)
    if refusal := wanted.refusal():
        raise refused(wanted, refusal)
    artifact = wanted.artifact()
    tell_compiled(found=artifact is not None)
    if artifact:
        _tell_unchecked(wanted)
        return artifact
    if not backend.tied_to():
        return wanted.make(build_here)
    _log.warning(
        "compiling `%s` for %s, which may take minutes; `mmedge compile %s` does it ahead, and checks the answers",
        graph.component,
        backend.name,
        bundle.path,
    )
    try:
        return wanted.make(build_apart)
    except BuildKilled:
        raise
    except BackendError as error:
        wanted.refuse(error.message, wrong=False)  # so that not every start tries for minutes, and fails
        raise


@contextmanager
def replaying() -> Iterator[None]:
    """What is opened meanwhile is being checked: nobody need be told that it never was."""
    token = _replaying.set(True)
    try:
        yield
    finally:
        _replaying.reset(token)


def _tell_unchecked(wanted: Entry) -> None:
    """Of engines that build in seconds on a CPU nobody expects other answers; those of a GPU choose among kernels."""
    if wanted.backend.tied_to() and not _replaying.get() and not wanted.was_replayed():
        _log.warning(
            "`%s` on %s was built here but never asked the golden samples: run `mmedge compile %s`",
            wanted.graph.component,
            wanted.backend.name,
            wanted.bundle.path,
        )


def build_here(backend: Backend, graph: Graph, source: Path, output: Path, options: Options) -> Path:
    """In this process: for engines that take seconds."""
    return backend.compile(graph, source, output, options)


def refused(wanted: Entry, refusal: Refusal) -> MmedgeError:
    """What everyone is told who wants a graph that was refused."""
    kind = QualityError if refusal.wrong else BackendError
    return kind(
        f"`{wanted.graph.component}` on {wanted.backend.name} was refused on this device: {refusal.reason}",
        hint=f"`mmedge compile {wanted.bundle.path}` tries again; --backend chooses another engine",
    )


def _code(backend: Backend) -> list[Path]:
    """The file of the backend, and those beside it that only it uses: ``_<file>.py``, ``_<file>_build.py``."""
    file = Path(inspect.getfile(type(backend)))
    return [file, *sorted(file.parent.glob(f"_{file.stem}*.py"))]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def size_of(bundle: Bundle, graph: Graph) -> int:
    """Bytes of the graph with its weights: what is compiled is about as large."""
    stem = graph.file.removesuffix("onnx")
    return sum(file.size for name, file in bundle.manifest.files.items() if name.startswith(stem))
