"""Compiled graphs of a bundle for this device, made once and kept beside it.

They lie in ``<bundle>.ready/<component>-<backend>-<key>/``, where the key stands for everything that went into them:
the bundle, the backend with its version, and the processor. Where that place cannot be written, they are kept in the
user's cache folder, and a warning says so. A folder appears by one rename, complete; of two processes that need the
same one, the second waits for the first. Folders made by other versions stay: ``<bundle>.ready`` may be deleted at any
time.

A compiled graph is trusted like code, and its engine checks nothing. So a folder is believed only while its files are
the very files that were written here: same size, inode and time of last change. One that was damaged, edited, copied,
or came along with a bundle from elsewhere is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from mmedge.core.backend import Backend
from mmedge.core.bundle import Bundle, Graph
from mmedge.core.files import open_regular
from mmedge.core.writing import check_space
from mmedge.errors import BundleError, ResourceError
from mmedge.runtime.device import this_device

_RECORD, _LOCK = "made.json", "lock"
_log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
"""Size, inode and time of last change (ns) of a file. Nobody can set the last two, unlike its times of writing."""


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """What a folder of compiled files says of itself."""

    artifact: str
    """The file that the backend opens."""
    files: dict[str, Stamp]
    made_for: dict[str, str]
    """What the key stands for, for people."""


def ready(bundle: Bundle, graph: Graph, backend: Backend) -> Path:
    """The file that ``backend.open`` takes for ``graph`` on this device, compiled now if it never was.

    Raises:
        BackendError: the engine is missing or refuses the graph.
        BundleError: the graph's files are not what the bundle's manifest says.
        ResourceError: there is no place to keep what is compiled.
    """
    if not backend.compiles(graph):
        return bundle.file(graph.file)
    made_for = _made_for(bundle, graph, backend)
    name = f"{graph.component}-{backend.name}-{_key(made_for)}"
    for place in _places(bundle):
        if artifact := _stored(place / name):
            return artifact
    with _place_to_write(bundle) as place:
        return _stored(place / name) or _make(place / name, bundle, graph, backend, made_for)


def _made_for(bundle: Bundle, graph: Graph, backend: Backend) -> dict[str, str]:
    device = this_device()
    return {
        "bundle": bundle.digest,
        "component": graph.component,
        "backend": f"{backend.name} {backend.version()}",
        "compiler": _digest(Path(inspect.getfile(type(backend))).read_bytes()),
        "device": f"{device.name}, {device.arch}",
        "processor": device.processor,
    }


def _key(made_for: dict[str, str]) -> str:
    return _digest(msgspec.json.encode(made_for, order="sorted"))[:16]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _places(bundle: Bundle) -> list[Path]:
    """Beside the bundle, and in the user's cache folder, where other bundles of the same name may be."""
    path = bundle.path.resolve()
    beside = path.with_name(f"{path.name}.ready")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # stays as it is without a home
    return (
        [beside, Path(cache, "mmedge", f"{path.name}-{bundle.digest[:16]}.ready")] if os.path.isabs(cache) else [beside]
    )


def _stored(folder: Path) -> Path | None:
    """The artifact in ``folder``, if it is as it was when it was made."""
    try:
        with open_regular(folder, _RECORD) as file:
            record = msgspec.json.decode(file.read(), type=Record)
        unchanged = all(_stamp(folder / name) == stamp for name, stamp in record.files.items())
    except (BundleError, OSError, msgspec.DecodeError):
        return None
    return folder / record.artifact if unchanged and record.artifact in record.files else None


def _stamp(path: Path) -> Stamp:
    found = path.lstat()
    return found.st_size, found.st_ino, found.st_ctime_ns


@contextmanager
def _place_to_write(bundle: Bundle) -> Iterator[Path]:
    """The first place that takes files, with no other process writing there meanwhile."""
    refusals = []
    with ExitStack() as stack:
        for place in _places(bundle):
            try:
                stack.enter_context(_alone_in(place))
            except OSError as error:
                refusals.append(f"`{place}`: {error.strerror}")
                continue
            if refusals:
                _log.warning("compiled graphs are kept in `%s`, since they cannot be in %s", place, refusals[0])
            yield place
            return
    raise ResourceError(
        f"there is no place for compiled graphs ({'; '.join(refusals)})",
        hint="set XDG_CACHE_HOME to a folder that can be written",
    )


@contextmanager
def _alone_in(place: Path) -> Iterator[None]:
    """Hold a lock that the kernel frees when this process ends in any way; no link is followed, no FIFO waited for."""
    place.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, folder)
        lock = os.open(
            _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644, dir_fd=folder
        )
        stack.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("waiting for another process that compiles in `%s`", place)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(folder: Path, bundle: Bundle, graph: Graph, backend: Backend, made_for: dict[str, str]) -> Path:
    """Compile into a draft and put it where ``folder`` is to be; nobody else writes there meanwhile."""
    place, draft, old = folder.parent, folder.with_name(".new"), folder.with_name(".old")
    check_space(place, _size(bundle, graph))
    if folder.exists():
        _log.warning("`%s` is not as it was made on this device: compiling again", folder)
    try:
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
        draft.mkdir()
        artifact = backend.compile(graph, bundle.file(graph.file), draft).relative_to(draft)
        files = {path.relative_to(draft).as_posix(): _settle(path) for path in draft.rglob("*") if path.is_file()}
        record = Record(artifact.as_posix(), files, made_for)
        (draft / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
        with suppress(FileNotFoundError):
            folder.rename(old)
        draft.rename(folder)
    except OSError as error:
        raise ResourceError(f"cannot keep the compiled `{graph.component}` in `{place}`: {error.strerror}") from error
    finally:
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)
    return folder / artifact


def _settle(path: Path) -> Stamp:
    """Bring a file to the disk before anything says that it is there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _stamp(path)


def _size(bundle: Bundle, graph: Graph) -> int:
    """Bytes of the graph with its weights: what is compiled is about as large."""
    stem = graph.file.removesuffix("onnx")
    return sum(file.size for name, file in bundle.manifest.files.items() if name.startswith(stem))
