"""The folders in which compiled graphs are kept: beside the bundle, or in the user's cache folder.

A folder appears by one rename, complete; of two processes that need the same one, the second waits for the first.

A compiled graph is trusted like code, and its engine checks nothing. So a folder is believed only while its files are
the very files that were written here: same size, inode and time of last change, and while it and they belong to this
user or to root. One that was damaged, edited, copied, made by another user of the machine, or came along with a bundle
from elsewhere is made again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from mmedge.core.bundle import Bundle
from mmedge.core.files import open_regular
from mmedge.errors import BundleError, ResourceError
from mmedge.runtime.owned import Stamp, check_place, stamp_of, trusted

_RECORD, _LOCK, _SHARED, _REFUSED = "made.json", "lock", "shared.json", ".refused"
_REPLAYED = "replayed"
_LONGEST_REFUSAL = 1 << 14
_log = logging.getLogger(__name__)

CHOSEN = "MMEDGE_READY"
"""Environment variable: the folder to keep compiled graphs in instead."""


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """What a folder of compiled files says of itself."""

    artifact: str
    """The file that the backend opens."""
    files: dict[str, Stamp]
    made_for: dict[str, str]
    """What its name stands for, for people; it must be what is asked for all the same."""


class Refusal(Struct, frozen=True, forbid_unknown_fields=True):
    """Why something compiled is not to be used."""

    reason: str
    wrong: bool
    """It answered, but wrongly; otherwise it could not be made or opened."""


def places(bundle: Bundle) -> list[Path]:
    """Beside the bundle, and in the user's cache folder, where other bundles of the same name may be; in the folder
    that ``MMEDGE_READY`` names, and nowhere else, where it is set."""
    path = bundle.path.resolve()
    beside, own = path.with_name(f"{path.name}.ready"), f"{path.name}-{bundle.digest[:16]}.ready"
    if chosen := os.environ.get(CHOSEN):
        return [Path(chosen).absolute() / own]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # stays as it is without a home
    return [beside, Path(cache, "mmedge", own)] if os.path.isabs(cache) else [beside]


def stored(folder: Path, made_for: dict[str, str]) -> Path | None:
    """The artifact in ``folder``, if it is as it was when it was made, and was made for this, by someone to trust."""
    try:
        with open_regular(folder, _RECORD) as file:
            record = msgspec.json.decode(file.read(), type=Record)
        unchanged = all(stamp_of(folder / name) == stamp for name, stamp in record.files.items())
        believed = all(map(trusted, (folder.parent, folder, folder / _RECORD, *map(folder.joinpath, record.files))))
    except (BundleError, OSError, msgspec.DecodeError):
        return None
    fits = unchanged and believed and record.made_for == made_for and record.artifact in record.files
    return folder / record.artifact if fits else None


def store(folder: Path, made_for: dict[str, str], make: Callable[[Path], Path]) -> Path:
    """Have ``make(draft)`` fill a draft and return the artifact in it, and put the draft where ``folder`` is to be.

    Nobody else writes there meanwhile (`place_to_write`). What ``make`` leaves beside the draft, such as what an engine
    learnt of the device, is there for the next one.

    Raises:
        ResourceError: the disk refuses.
    """
    draft, old = folder.with_name(".new"), folder.with_name(".old")
    if folder.exists():
        _log.warning("`%s` is not as it was made on this device: compiling again", folder)
    try:
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
        _drop_strangers(folder.parent)
        draft.mkdir()
        artifact = make(draft).relative_to(draft)
        files = {path.relative_to(draft).as_posix(): _settle(path) for path in draft.rglob("*") if path.is_file()}
        record = Record(artifact.as_posix(), files, made_for)
        (draft / _RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)))
        with suppress(FileNotFoundError):
            folder.rename(old)
        draft.rename(folder)
        _remember_shared(folder.parent)
    except OSError as error:
        raise ResourceError(f"cannot keep what was compiled in `{folder.parent}`: {error.strerror}") from error
    finally:
        for left in (draft, old):
            shutil.rmtree(left, ignore_errors=True)
    return folder / artifact


def discard(folder: Path) -> None:
    """Remove what is kept there, unless it belongs to someone else."""
    shutil.rmtree(folder, ignore_errors=True)


def mark_replayed(folder: Path) -> None:
    """Remember that what is kept there answered the golden samples as it should."""
    (folder / _REPLAYED).touch()


def was_replayed(folder: Path) -> bool:
    """Whether what is kept there was ever asked the golden samples."""
    try:
        return trusted(folder / _REPLAYED)
    except OSError:
        return False


def refuse(folder: Path, refusal: Refusal) -> None:
    """Remember that what ``folder`` holds is not to be used, or made again without being asked to.

    Raises:
        OSError: it cannot be written there.
    """
    folder.with_name(folder.name + _REFUSED).write_bytes(msgspec.json.encode(refusal))


def refusal(folder: Path) -> Refusal | None:
    """Why ``folder`` was refused, if it was, by someone to trust."""
    name = folder.name + _REFUSED
    try:
        with open_regular(folder.parent, name) as file:
            found = msgspec.json.decode(file.read(_LONGEST_REFUSAL), type=Refusal)
        return found if trusted(folder.parent) and trusted(folder.with_name(name)) else None
    except (BundleError, OSError, msgspec.DecodeError):
        return None


def forgive(folder: Path) -> None:
    """Forget a refusal, unless it is someone else's."""
    with suppress(OSError):
        folder.with_name(folder.name + _REFUSED).unlink()


def usable(place: Path) -> bool:
    """Whether this user could keep something there, or it is not there yet."""
    try:
        check_place(place)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextmanager
def place_to_write(bundle: Bundle) -> Iterator[Path]:
    """The first place that takes files, with no other process writing there meanwhile.

    Raises:
        ResourceError: there is none.
    """
    refusals = []
    with ExitStack() as stack:
        for place in places(bundle):
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
    check_place(place)
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


def _shared(place: Path) -> list[Path]:
    """What engines left beside the folders: everything that is none of ours."""
    own = {_LOCK, _SHARED, f".{_SHARED}"}
    found = (path for path in place.iterdir() if path.is_symlink() or not path.is_dir())
    return [path for path in found if path.name not in own and not path.name.endswith(_REFUSED)]


def _drop_strangers(place: Path) -> None:
    """Remove what engines would read and nobody left here on this device, as with compiled graphs."""
    try:
        with open_regular(place, _SHARED) as file:
            known = msgspec.json.decode(file.read(), type=dict[str, Stamp])
        known = known if trusted(place / _SHARED) else {}
    except (BundleError, msgspec.DecodeError):
        known = {}
    for path in _shared(place):
        if known.get(path.name) != stamp_of(path) or not trusted(path):
            path.unlink()


def _remember_shared(place: Path) -> None:
    if stamps := {path.name: stamp_of(path) for path in _shared(place)}:
        draft = place / f".{_SHARED}"
        draft.write_bytes(msgspec.json.encode(stamps))
        draft.replace(place / _SHARED)


def _settle(path: Path) -> Stamp:
    """Bring a file to the disk before anything says that it is there."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return stamp_of(path)
