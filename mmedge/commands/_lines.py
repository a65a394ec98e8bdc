"""Lines that somebody types, or that a program pipes in; and what Ctrl-C means meanwhile."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import TextIOWrapper
from types import FrameType, TracebackType

from mmedge.errors import InputError


class EndOfTalk(KeyboardInterrupt):
    """Ctrl-C, twice."""


class CtrlC:
    """In the ``with`` block a first Ctrl-C drops the line being typed, or asks the answer under way to end; one more,
    with nothing said in between, is an `EndOfTalk`."""

    def __init__(self) -> None:
        self.typing = False
        self._pressed = 0

    def calm(self) -> None:
        """The user goes on: forget what was pressed before."""
        self._pressed = 0

    def stopping(self) -> bool:
        """Whether the answer shall end."""
        return self._pressed > 0

    def __enter__(self) -> CtrlC:
        self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self._pressed += 1
        if self._pressed > 1:
            raise EndOfTalk
        if self.typing:
            raise KeyboardInterrupt


def typed_lines(prompt: Callable[[], str], ctrl_c: CtrlC) -> Iterator[str]:
    """What a person types, until Ctrl-D; with the editing and the history of readline where this Python has it."""
    _as_bytes()
    with suppress(ImportError):
        import readline  # noqa: F401  (`input` uses it once it is imported)
    while True:
        ctrl_c.typing = True
        try:
            line = _typed(prompt())
        except EndOfTalk:
            raise
        except KeyboardInterrupt:
            print("\n(once more, or Ctrl-D, ends)", file=sys.stderr)
            continue
        except EOFError:
            print(file=sys.stderr)
            return
        finally:
            ctrl_c.typing = False
        ctrl_c.calm()
        yield line


def piped_lines() -> Iterator[str]:
    """What another program says."""
    _as_bytes()
    return (line.rstrip("\n") for line in sys.stdin)


def is_typed() -> bool:
    """Whether a person sits at standard input.

    Raises:
        InputError: it is closed.
    """
    if sys.stdin is None:
        raise InputError("standard input is closed", hint="pipe messages in, one a line")
    return sys.stdin.isatty()


def _typed(prompt: str) -> str:
    """Standard output has answers alone: only a terminal shows the prompt there, which readline has to know."""
    if sys.stdout and sys.stdout.isatty():
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()


def _as_bytes() -> None:
    """Names of files may hold bytes that are no text; a message that does is refused when it is read."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
