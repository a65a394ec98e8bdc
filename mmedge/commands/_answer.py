"""What `caption` and `ask` share: which pictures, how to pick tokens, and one answer after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from cyclopts import Parameter

from mmedge.commands._shown_answers import Keeper, Printer
from mmedge.core.names import readable
from mmedge.errors import InputError, UsageError

if TYPE_CHECKING:
    from mmedge.core.bundle import Bundle
    from mmedge.media.image import Picture
    from mmedge.media.video import Video
    from mmedge.runtime.clock import Clock
    from mmedge.runtime.pick import Pick
    from mmedge.runtime.pipeline import Answer, Piece, Pipeline

TOGETHER = 8
"""Answers that go on at once where the engine can: see `benchmarks/together.py`."""

STDIN = "-"
Dashed: TypeAlias = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""An argument that may be ``-``."""
Output: TypeAlias = Annotated[Path | None, Parameter(name=("--output", "-o"))]


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


@dataclass(frozen=True)
class Job:
    """What is asked of pictures, and where the answers go."""

    task: str
    text: str | None
    options: Answering
    output: Path | None = None
    resume: bool = False
    frames: int | None = None
    """Of a video; None where pictures are meant."""


def answer_all(bundle: Path, pictures: Sequence[str], job: Job) -> int:
    """Answer for every picture; one among several that cannot be used is reported and the others go on.

    Returns the exit code: 3 if any picture could not be used.
    """
    from mmedge.commands._kept_answers import keep_answers
    from mmedge.core.bundle import open_bundle
    from mmedge.runtime.model import check_task

    if job.resume and not job.output:
        raise UsageError("no file is named that could be resumed", hint="-o answers.jsonl --resume")
    names = list(expand(pictures)) if job.frames is None else _videos(pictures, job.frames)
    opened = open_bundle(bundle)
    check_task(job.task, opened.manifest.tasks)
    if not job.output:
        return _run(opened, names, job, Printer(job.options.json, several=len(names) > 1))
    about = {"digest": opened.digest, "task": job.task, "prompt": job.text, "frames": job.frames}
    with keep_answers(job.output, about, resume=job.resume) as kept:
        left = [name for name in names if name == STDIN or readable(name) not in kept.known]
        return _run(opened, left, job, Keeper(kept, len(names), len(names) - len(left), json=job.options.json))


def _run(bundle: Bundle, names: Sequence[str], job: Job, out: Printer | Keeper) -> int:
    from mmedge.commands._progress import Bar
    from mmedge.runtime.pick import sampler
    from mmedge.runtime.pipeline import open_pipeline

    options = job.options
    pick = sampler(options.temperature, options.top_p, options.seed)
    with Bar(len(names), hidden=out.live) as bar:
        if names:  # else no engine has to be opened
            with open_pipeline(bundle, backend=options.backend, threads=options.threads, remember=True) as pipeline:
                together = pipeline.goes_together and not (options.temperature or out.live) and job.frames is None
                answers = (
                    _together(pipeline, job, names) if together else _answers(pipeline, job, names, pick, out.piece)
                )
                for name, answer in answers:
                    bar.clear()
                    if isinstance(answer, InputError):
                        out.refuse(name, answer)
                    else:
                        out.finish(name, answer, pipeline.backends)
                    bar.step(name)
    return out.end()


def _answers(
    pipeline: Pipeline, job: Job, names: Sequence[str], pick: Pick, show: Callable[[str, Piece], None]
) -> Iterator[tuple[str, Answer | InputError]]:
    """Each picture with its answer or what is wrong with it, in order."""
    from mmedge.runtime.clock import Clock

    for name in names:
        clock = Clock()
        try:
            yield (
                name,
                pipeline.answer(
                    job.task,
                    _subject(name, job, clock),
                    job.text,
                    pick=pick,
                    limit=job.options.max_tokens,
                    show=partial(show, name),
                    reject_animated=job.options.animated == "reject",
                    clock=clock,
                ),
            )
        except InputError as error:
            yield name, error


def _subject(name: str, job: Job, clock: Clock) -> str | bytes | Video:
    from mmedge.media.video import read_video

    if job.frames is not None:
        with clock.stage("decode"):
            return read_video(name, job.frames)
    return read_stdin() if name == STDIN else name


def _together(pipeline: Pipeline, job: Job, names: Sequence[str]) -> Iterator[tuple[str, Answer | InputError]]:
    """As `_answers`, with `TOGETHER` answers going on at once."""
    for begin in range(0, len(names), TOGETHER):
        group = names[begin : begin + TOGETHER]
        seen = [(name, _seen(name, job)) for name in group]
        pictures = [picture for _, picture in seen if not isinstance(picture, InputError)]
        answers: Iterator[Answer | InputError]
        try:
            answers = iter(pipeline.answer_together(job.task, pictures, job.text, limit=job.options.max_tokens))
        except InputError:  # the text is too long for one of them
            answers = (_alone(pipeline, job, picture) for picture in pictures)
        for name, picture in seen:
            yield name, picture if isinstance(picture, InputError) else next(answers)


def _alone(pipeline: Pipeline, job: Job, picture: Picture) -> Answer | InputError:
    try:
        return pipeline.answer(job.task, picture, job.text, limit=job.options.max_tokens)
    except InputError as error:
        return error


def _seen(name: str, job: Job) -> Picture | InputError:
    from mmedge.runtime.subjects import look

    try:
        return look(read_stdin() if name == STDIN else name, reject_animated=job.options.animated == "reject")
    except InputError as error:
        return error


def _videos(names: Sequence[str], frames: int) -> list[str]:
    """
    Raises:
        UsageError: an option that does not exist is among them, or standard input, or there is nothing to look at.
    """
    if frames < 1:
        raise UsageError(f"--frames is {frames}, it must be at least 1")
    for name in names:
        _check_no_option(name)
        if name == STDIN:
            raise UsageError("a video cannot come from standard input", hint="name a file, or a folder of frames")
    return list(names)


def _check_no_option(name: str) -> None:
    if name.startswith("-") and name != STDIN:
        raise UsageError(f"unknown option: {name}", hint=f"--help lists the options; a file of this name is ./{name}")


def expand(files: Sequence[str], modality: str = "image") -> Iterator[str]:
    """Folders become the pictures inside them, or what else is asked for, in order of their names.

    Raises:
        UsageError: an option that does not exist is among them.
        InputError: a folder has none.
    """
    from mmedge.core.family import MODALITIES
    from mmedge.core.samples import ENDINGS

    endings = ENDINGS[modality]
    for name in files:
        _check_no_option(name)
        if name != STDIN and os.path.isdir(name):  # False too if it cannot be told
            inside = sorted(str(path) for path in Path(name).rglob("*") if path.suffix.lower() in endings)
            if not inside:
                what = MODALITIES[modality]
                raise InputError(f"the folder `{name}` has no {what}", hint=f"looked for {', '.join(endings)}")
            yield from inside
        else:
            yield name


def read_stdin(modality: str = "image") -> bytes:
    """The bytes of a picture, or of a sound.

    Raises:
        InputError: there are none, or too many.
    """
    from mmedge.media import audio, image

    what, read = ("sound", audio.read_stream) if modality == "audio" else ("picture", image.read_stream)
    if sys.stdin is None:
        raise InputError("standard input is closed", hint=f"name a file, or pipe a {what} in")
    if data := read(sys.stdin.buffer, "standard input"):
        return data
    raise InputError("standard input is empty", hint=f"name a file, or pipe a {what} in")
