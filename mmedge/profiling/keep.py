"""A run as a file: ``run.json`` or ``run.json.gz``, whole at every moment, and read with every mistake named."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from mmedge.core.names import lowered, shown
from mmedge.core.whole_file import write_whole
from mmedge.errors import InputError, UsageError
from mmedge.profiling import older
from mmedge.profiling.run import SCHEMA, Run

LARGEST = 512 << 20
"""Bytes of a run, unpacked: some 300,000 answers of a hundred tokens."""

_NAME = re.compile(r"mmedge\.profile/([1-9][0-9]{0,8})")
_THIS = int(SCHEMA.rpartition("/")[2])
_HIGHEST = 1 << 62
_PACKED = b"\x1f\x8b"
_FIELDS = tuple(field for field in Run.__struct_fields__ if field != "notes")

_NAMED_BY_ALL = ("samples", "answers", "memory", "limits", "cold", "warmups", "minutes", "load", "quality", "roofline")
"""Lists of a run whose rows name a candidate."""
_NAMED_IN_RESULTS = ("abs", "ratios", "fits", "worst")


def write_run(run: Run, path: Path) -> None:
    """Keep ``run`` at ``path``, compressed where that ends in ``.gz``; a run that is there is replaced.

    Raises:
        UsageError: it cannot be written there.
        ValueError: it could not be read again, because a number in it is not finite or names what is not there.
    """
    raw = encode_run(run)
    _check_places(msgspec.json.decode(raw, type=Run))
    write_whole(path, gzip.compress(raw, 6, mtime=0) if path.suffix == ".gz" else raw)


def encode_run(run: Run) -> bytes:
    """As JSON in one line; notes are keys of their own."""
    return msgspec.json.encode({name: getattr(run, name) for name in _FIELDS} | run.notes) + b"\n"


def read_run(path: Path) -> Run:
    """Read what `write_run` or an older mmedge wrote. A run that was not completed is read too: see `Run.complete`.

    Keys that are unknown are ignored, but those at the top that begin with ``x-`` become notes.

    Raises:
        UsageError: there is no such file.
        InputError: it is no run, damaged, larger than `LARGEST`, or of a newer mmedge.
    """
    try:
        return decode_run(_content(path))
    except (ValueError, msgspec.MsgspecError) as error:  # before msgspec 0.20 its errors were no ValueErrors
        raise _refused(path, _in_our_words(str(error))) from error
    except RecursionError as error:
        raise _refused(path, "it is nested too deep") from error
    except _Newer as error:
        raise InputError(
            f"`{path}` was written by a newer mmedge, as `{error}`; this one reads up to `{SCHEMA}`",
            hint="update mmedge: pip install --upgrade mmedge",
        ) from error


def decode_run(raw: bytes) -> Run:
    """From JSON.

    Raises:
        ValueError: it is no run.
    """
    parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    if _version(parts) == 1:
        run = older.read_first(raw)
    else:
        run = msgspec.json.decode(raw, type=Run)
        notes = {name: msgspec.json.decode(part) for name, part in parts.items() if name.startswith("x-")}
        run = replace(run, notes=notes)
    _check_places(run)
    return run


class _Newer(Exception):
    """The name of a schema that this version cannot know."""


def _version(parts: dict[str, msgspec.Raw]) -> int:
    name: Any = msgspec.json.decode(parts["schema"]) if "schema" in parts else None
    if not isinstance(name, str) or not (found := _NAME.fullmatch(name)):
        said = f"its `schema` is `{shown(str(name))}`" if name is not None else "it has no `schema`"
        raise ValueError(f"it is not a run of the profiler: {said}")
    if (number := int(found[1])) > _THIS:
        raise _Newer(name)
    return number


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            packed = file.read(len(_PACKED)) == _PACKED
            file.seek(0)
            raw = (gzip.GzipFile(fileobj=file) if packed else file).read(LARGEST + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"there is no run at `{path}`", hint="`mmedge profile ... -o run.json` keeps one") from error
    except IsADirectoryError as error:
        raise UsageError(f"`{path}` is a folder, not a run") from error
    except PermissionError as error:
        raise UsageError(f"cannot read `{path}`: permission denied") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"it is not whole: {error}") from error
    if len(raw) > LARGEST:
        raise ValueError(f"it has more than {LARGEST >> 20} MiB, unpacked")
    return raw


def _refused(path: Path, reason: str) -> InputError:
    return InputError(f"cannot read the run `{path}`: {reason}", hint="measure again, or copy the file again")


def _in_our_words(reason: str) -> str:
    """`Expected `object`, got `array`` at the top means that it is something else than a run."""
    if reason.startswith("Expected `object`") and " - at " not in reason:
        return "it is JSON, but not a run of the profiler"
    return shown(lowered(reason), 200)


def _check_places(run: Run) -> None:
    """Everything that a row names by its place is there.

    Raises:
        ValueError: naming the first row that is wrong.
    """
    if not run.candidates:
        raise ValueError("it has no candidates")
    candidates, inputs, answers = len(run.candidates), len(run.inputs.items), len(run.answers)
    for name in (*_NAMED_BY_ALL, "layers"):
        _check(f"$.{name}", "c", (row.c for row in getattr(run, name)), candidates, "candidates")
    for name in _NAMED_IN_RESULTS:
        _check(f"$.results.{name}", "c", (row.c for row in getattr(run.results, name)), candidates, "candidates")
    _check("$.results.ratios", "base", (row.base for row in run.results.ratios), candidates, "candidates")
    _check("$.results.worst", "input", (row.input for row in run.results.worst), inputs, "inputs")
    _check("$.roofline", "input", (row.input or 0 for row in run.roofline), inputs, "inputs")
    _check("$.samples", "input", (sample.input for sample in run.samples), inputs, "inputs")
    _check("$.samples", "answer", (sample.answer for sample in run.samples), answers, "answers")
    _check("$.answers", "input", (answer.input for answer in run.answers), inputs, "inputs")
    for name in ("process", "round", "start_ns", "answer_ns"):
        _check_size(name, (getattr(sample, name) for sample in run.samples))
    _check("$.quality", "reference", (score.reference for score in run.quality), candidates, "candidates")
    for at, which, length in _lengths(run):
        if length != inputs:
            raise ValueError(f"it has {inputs} inputs, `{which}` of `$.quality[{at}]` has {length}")


def _check(where: str, field: str, places: Iterable[int], count: int, what: str) -> None:
    for at, place in enumerate(places):
        if not 0 <= place < count:
            raise ValueError(f"`{where}[{at}].{field}` is {place}, of {count} {what} (counted from 0)")


def _check_size(field: str, values: Iterable[int]) -> None:
    """Python's integers have no end, arrays of them do."""
    for at, value in enumerate(values):
        if abs(value) > _HIGHEST:
            raise ValueError(f"`$.samples[{at}].{field}` has {len(str(abs(value)))} digits")


def _lengths(run: Run) -> Iterator[tuple[int, str, int]]:
    for at, score in enumerate(run.quality):
        yield at, "per_input", len(score.per_input)
        yield at, "agree", len(score.agree)
