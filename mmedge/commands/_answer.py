"""What `caption` and `ask` share: which pictures, how to pick tokens, and how answers are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Parameter

from mmedge.errors import InputError, UsageError

if TYPE_CHECKING:
    from mmedge.runtime.pipeline import Answer, Pipeline

STDIN = "-"
Dashed: TypeAlias = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""An argument that may be ``-``."""


@Parameter(name="*")
@dataclass(frozen=True)
class Answering:
    """How to answer."""

    backend: str | None = None
    """Run every graph on this engine instead of the target's choice."""
    threads: int = 0
    """CPU threads; 0 means all cores."""
    max_tokens: Annotated[int | None, Parameter(name=("--max-tokens",))] = None
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 always takes the likeliest token; higher draws more freely."""
    top_p: float = 1.0
    """Draw only from the likeliest tokens that together have this probability."""
    seed: int | None = None
    """Makes draws repeatable."""
    animated: Literal["first", "reject"] = "first"
    """Of an animated picture, look at the first frame, or refuse it."""
    json: bool = False
    """One JSON object per answer: text, tokens, milliseconds per stage, warnings, the engine of each graph."""


def answer_all(task: str, bundle: Path, pictures: Sequence[str], text: str | None, options: Answering) -> int:
    """Answer for every picture and print; a picture that cannot be used is reported and the others go on.

    Returns the exit code: 3 if any picture could not be used.
    """
    from mmedge.runtime.pick import sampler
    from mmedge.runtime.pipeline import load

    names = list(_expand(pictures))
    pick = sampler(options.temperature, options.top_p, options.seed)
    bad = 0
    with load(bundle, backend=options.backend, threads=options.threads) as pipeline:
        _check_task(pipeline, task)
        for name in names:
            printer = Printer(name if len(names) > 1 else None, options.json, pipeline.backends)
            try:
                answer = pipeline.answer(
                    task,
                    _read_stdin() if name == STDIN else name,
                    text,
                    pick=pick,
                    limit=options.max_tokens,
                    show=printer.piece,
                    reject_animated=options.animated == "reject",
                )
                printer.finish(name, answer)
            except InputError as error:
                if len(names) == 1:
                    raise
                bad += 1
                printer.refuse(name, error)
    return InputError.exit_code if bad else 0


class Printer:
    """Answers on standard output: streamed to a terminal, one line each; or one JSON object each."""

    def __init__(self, label: str | None, json: bool, engines: dict[str, str]) -> None:
        self.label = label
        self.engines = engines
        self.json = json
        self.live = not json and sys.stdout.isatty()
        self.started = False

    def piece(self, piece: object) -> None:
        if self.live:
            self._begin()
            print(getattr(piece, "text", "") if self.started else "", end="", flush=True)

    def refuse(self, name: str, error: InputError) -> None:
        """A picture among several that cannot be used."""
        import msgspec

        if self.json:
            fields = {"exit_code": error.exit_code, "message": error.message, "hint": error.hint}
            print(msgspec.json.encode({"picture": _told(name), "error": fields}).decode(), flush=True)
        print(f"error: {error.message}", file=sys.stderr)

    def finish(self, name: str, answer: Answer) -> None:
        import msgspec

        if self.json:
            told = {"picture": _told(name), **msgspec.structs.asdict(answer), "engines": self.engines}
            print(msgspec.json.encode(told).decode(), flush=True)
            return
        if self.live:
            print()
        else:
            self._begin()
            print(answer.text, flush=True)
        for warning in answer.warnings:
            print(f"warning: {name}: {warning}", file=sys.stderr)

    def _begin(self) -> None:
        if self.label and not self.started:
            print(f"{self.label}: ", end="")
        self.started = True


def _read_stdin() -> bytes:
    from mmedge.media.image import read_stream

    if sys.stdin is None:
        raise InputError("standard input is closed", hint="name a file, or pipe a picture in")
    return read_stream(sys.stdin.buffer, "standard input")


def _check_task(pipeline: Pipeline, task: str) -> None:
    if task not in pipeline.tasks:
        raise UsageError(f"this bundle cannot `{task}`", hint=f"it can: {', '.join(pipeline.tasks)}")


def _expand(pictures: Sequence[str]) -> Iterator[str]:
    """Folders become the pictures inside them, in order of their names."""
    from mmedge.core.samples import PICTURES

    for name in pictures:
        if name.startswith("-") and name != STDIN:
            raise UsageError(
                f"unknown option: {name}", hint=f"--help lists the options; a file of this name is ./{name}"
            )
        if name != STDIN and os.path.isdir(name):  # False too if it cannot be told
            inside = sorted(str(path) for path in Path(name).rglob("*") if path.suffix.lower() in PICTURES)
            if not inside:
                raise InputError(f"the folder `{name}` has no pictures", hint=f"looked for {', '.join(PICTURES)}")
            yield from inside
        else:
            yield name


def _told(name: str) -> str:
    """A file name as JSON can hold it: bytes that are no text are written as escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")
