"""Where answers go: to standard output, or into a file."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from mmedge.core.names import readable
from mmedge.errors import InputError

if TYPE_CHECKING:
    from mmedge.commands._kept_answers import KeptAnswers
    from mmedge.runtime.pipeline import Answer, Piece

_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Refusals:
    """Pictures, or ``what`` else, that cannot be used: each is reported and the others go on; the only one is an error
    of the command."""

    def __init__(self, json: bool, *, several: bool, what: str = "picture") -> None:
        self.what = what
        self.json = json
        self.several = several
        self.bad = 0

    def refuse(self, name: str, error: InputError) -> None:
        if not self.several:
            raise error
        self.bad += 1
        if self.json:
            print(json_line({self.what: readable(name), "error": told(error)}), flush=True)
        print(f"error: {error.message}", file=sys.stderr)

    def end(self) -> int:
        """The exit code."""
        return InputError.exit_code if self.bad else 0


class Printer(Refusals):
    """Answers on standard output: streamed to a terminal, one line each; or one JSON object each."""

    def __init__(self, json: bool, *, several: bool) -> None:
        super().__init__(json, several=several)
        self.live = not json and sys.stdout is not None and sys.stdout.isatty()
        self._labelled: str | None = None

    def piece(self, name: str, piece: Piece) -> None:
        if self.live:
            self._label(name)
            print(for_terminal(piece.text), end="", flush=True)

    def finish(self, name: str, answer: Answer, engines: dict[str, str]) -> None:
        if self.json:
            print(json_line({"picture": readable(name), **_fields(answer, engines)}), flush=True)
            return
        if self.live:
            print()
        else:
            self._label(name)
            print(answer.text, flush=True)
        self._labelled = None  # the next one may be the same picture
        _warn(name, answer)

    def _label(self, name: str) -> None:
        if self.several and self._labelled != name:
            print(f"{name}: ", end="")
        self._labelled = name


class Keeper:
    """Answers into a file; on standard error what was skipped and how many there are."""

    live = False

    def __init__(self, kept: KeptAnswers, pictures: int, skipped: int, *, json: bool) -> None:
        self.kept = kept
        self.pictures = pictures
        self.skipped = skipped
        self.json = json
        self.answered = 0
        self.bad: list[dict[str, object]] = []
        if skipped:
            print(f"skipped {skipped} of {pictures} pictures, answered in `{kept.path}` already", file=sys.stderr)

    def piece(self, name: str, piece: Piece) -> None:
        pass  # a line is written when it is whole

    def refuse(self, name: str, error: InputError) -> None:
        if self.pictures == 1:
            raise error
        self.bad.append({"picture": readable(name), "error": told(error)})
        print(f"error: {error.message}", file=sys.stderr)

    def finish(self, name: str, answer: Answer, engines: dict[str, str]) -> None:
        self.kept.add(readable(name), _fields(answer, engines))
        self.answered += 1
        _warn(name, answer)

    def end(self) -> int:
        """The exit code."""
        if self.json:
            print(json_line({"answered": self.answered, "skipped": self.skipped, "bad": self.bad}), flush=True)
        bad = f", {len(self.bad)} could not be used" if self.bad else ""
        print(f"answered {self.answered} of {self.pictures} pictures{bad}", file=sys.stderr)
        return InputError.exit_code if self.bad else 0


def json_line(fields: dict[str, object]) -> str:
    """One object without a line break in it."""
    import msgspec

    return msgspec.json.encode(fields).decode()


def for_terminal(text: str) -> str:
    """What a model wrote without characters that steer a terminal: it may repeat what a picture tells it to."""
    return _STEERING.sub("", text)


def told(error: InputError) -> dict[str, object]:
    """An error as JSON holds it."""
    return {"exit_code": error.exit_code, "message": readable(error.message), "hint": error.hint}


def _fields(answer: Answer, engines: dict[str, str]) -> dict[str, object]:
    import msgspec

    return {**msgspec.structs.asdict(answer), "engines": engines}


def _warn(name: str, answer: Answer) -> None:
    for warning in answer.warnings:
        print(f"warning: {name}: {warning}", file=sys.stderr)
