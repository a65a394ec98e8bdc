"""One writer at a time, across processes: `flock` on a file that says who holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mmedge.errors import BusyError, ResourceError
from mmedge.signals import held_back

_PATIENCE_S = 0.5
"""How long a lock may be held by nobody we can name: its holder is just taking it or giving it back."""


@contextmanager
def locked(path: Path, what: Path) -> Iterator[None]:
    """Hold the lock file ``path`` while writing ``what``. The kernel frees the lock of a dead process, so a file that
    one left behind is simply taken over.

    Raises:
        BusyError: a living process holds it; its number is named.
        ResourceError: the folder refuses the file.
    """
    held: list[int] = []

    def give_back() -> None:
        # Closing is not enough: a forked child may have the descriptor too. And it is removed while it is held, so that
        # who opened this very file meanwhile notices and starts over. One that stays is taken over by the next writer.
        with held_back():
            while held:
                with suppress(OSError):
                    path.unlink()
                os.close(held.pop())

    try:
        try:
            with held_back():  # between taking it and knowing that it was taken
                held.append(_take(path, what))
            yield
        finally:
            give_back()
    finally:
        give_back()  # where a signal came just before it could be held back; the next one is not raised so soon


def _take(path: Path, what: Path) -> int:
    try:
        return _wait(path, what)
    except OSError as error:
        raise ResourceError(f"cannot write in `{path.parent}`: {error.strerror} ({path.name})") from error


def _wait(path: Path, what: Path) -> int:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        with ExitStack() as stack:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, descriptor)
            if _try_flock(descriptor):
                if not _is_at(descriptor, path):
                    continue
                stack.callback(path.unlink, missing_ok=True)
                _sign(descriptor)
                stack.pop_all()
                return descriptor
            holder = _living_holder(descriptor)
        if holder or time.monotonic() > deadline:
            holder = holder or "another process"
            raise BusyError(f"`{what}` is being written by {holder}", hint="wait for it, or stop it")
        time.sleep(0.01)


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at ``path``: its last holder may have removed it before we got it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _sign(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()} {os.uname().nodename}\n".encode(), 0)


def _living_holder(descriptor: int) -> str | None:
    """Who signed the lock, unless that is a process of this machine that no longer exists."""
    number, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
    if not number.isascii() or not number.isdigit() or not host:
        return None
    if host != os.uname().nodename:
        return f"process {number} on {host}"
    with suppress(PermissionError):  # it exists, but belongs to someone else
        try:
            os.kill(int(number), 0)
        except (ProcessLookupError, OverflowError):
            return None
    return f"process {number}"
