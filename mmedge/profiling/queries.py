"""What candidates are asked: a list or folder of pictures, or the golden samples of a bundle."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.names import shown
from mmedge.core.samples import Sample, read_samples
from mmedge.errors import InputError, UsageError
from mmedge.profiling.report import Query

TASKS = ("caption", "ask")


def queries_of(bundles: Sequence[Path], pictures: Path | None, task: str | None) -> tuple[Query, ...]:
    """Those of ``pictures``, or without them of the first bundle's golden samples; every bundle can answer them.

    Raises:
        InputError: the list or a sample in it cannot be used.
        UsageError: a bundle cannot do the task; there are no samples of it.
    """
    opened = [open_bundle(path) for path in bundles]
    shared = set.intersection(*({*bundle.manifest.tasks} for bundle in opened))
    queries = _listed(pictures, shared, task) if pictures else _golden(opened[0], task)
    for bundle in opened:
        for query in queries:
            if query.task not in bundle.manifest.tasks:
                tasks = ", ".join(bundle.manifest.tasks)
                raise UsageError(f"`{bundle.path}` cannot `{query.task}`", hint=f"it can: {tasks}")
    return queries


def _golden(bundle: Bundle, task: str | None) -> tuple[Query, ...]:
    chosen = [golden for golden in bundle.manifest.golden if task in (None, golden.task)]
    if not chosen:
        raise UsageError(f"`{bundle.path}` has no golden samples of this task", hint="give --pictures")
    return tuple(
        Query(golden.path, _text(bundle.file(f"{golden.path}/picture.png")), golden.task, golden.question)
        for golden in chosen
    )


def _listed(pictures: Path, tasks: Collection[str], task: str | None) -> tuple[Query, ...]:
    """Without a ``task``, samples are captioned if all bundles can."""
    if not pictures.exists():
        raise InputError(f"there are no pictures at `{pictures}`", hint="name a folder, or a .csv or .jsonl list")
    chosen = task or next((each for each in TASKS if each in tasks), TASKS[0])
    return tuple(_query(sample, chosen) for sample in read_samples(pictures))


def _query(sample: Sample, task: str) -> Query:
    if task == "ask" and not sample.question:
        raise InputError(f"the sample `{sample.id}` has no question", hint="add a column `question`, or --task caption")
    expected = sample.answer if task == "ask" else sample.caption
    return Query(sample.id, _text(sample.image), task, sample.question if task == "ask" else None, expected)


def _text(path: Path) -> str:
    """The path as a report can hold it."""
    try:
        return path.resolve().as_posix().encode().decode()
    except UnicodeEncodeError as error:
        raise InputError(f"the name of the picture `{shown(str(path))}` is not UTF-8", hint="rename it") from error
