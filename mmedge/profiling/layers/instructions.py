"""Instructions of decoding and pre-processing a picture: a second opinion that no busy neighbour can change.

Run as a program it only does that work: ``python -m mmedge.profiling.layers.instructions BUNDLE REPEATS FILE TEXT...``.
Counted once with N repeats and once with 2 N, the difference is the pictures' alone, without starting and importing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from mmedge.core import find
from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.family import Request
from mmedge.errors import BackendError
from mmedge.media.image import decode_picture, read_picture
from mmedge.media.text import Tokenizer

REPEATS = 2
_ALLOWED = 300.0
"""Seconds; valgrind runs a program about fifty times as slowly."""
_CALM = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""What would make the same work take other instructions the next time."""

Count: TypeAlias = Callable[[Sequence[str]], "tuple[int | None, str]"]
"""The instructions of a command in user space; null and why not."""


class Instructions(Struct, frozen=True):
    """Of one picture, on average."""

    per_input: float | None
    method: str | None
    """``perf stat``, ``valgrind``; null with a ``reason``."""
    reason: str = ""


def count(bundle: Path, inputs: Sequence[tuple[str, str | None]], repeats: int = REPEATS) -> Instructions:
    """What decoding and pre-processing of ``inputs`` takes, files and texts; see the module.

    Raises:
        BackendError: the work itself fails.
    """
    reasons = []
    for method, counted in METHODS.items():
        few, reason = counted(_command(bundle, inputs, repeats))
        if few is None:
            reasons.append(f"{method}: {reason}")
            continue
        many, reason = counted(_command(bundle, inputs, 2 * repeats))
        if many is None:
            reasons.append(f"{method}: {reason}")
            continue
        return Instructions((many - few) / (repeats * len(inputs)), method)
    return Instructions(None, None, "; ".join(reasons))


def work(bundle: Bundle, inputs: Iterable[tuple[bytes, str | None]], repeats: int) -> None:
    """Decode and pre-process every input so many times, as a pipeline does."""
    manifest = bundle.manifest
    family = find.family(manifest.family)
    tidy = manifest.config["text"]["clean_up_tokenization_spaces"]
    tokenizer = Tokenizer(bundle.read(manifest.assets["tokenizer"]), clean_up_spaces=tidy)
    given = list(inputs)
    for _ in range(repeats):
        for data, text in given:
            pixels = decode_picture(data, "picture").pixels
            family.prepare(manifest.config, tokenizer, Request(images=(pixels,), text=text))


def _command(bundle: Path, inputs: Sequence[tuple[str, str | None]], repeats: int) -> list[str]:
    texts = [part for file, text in inputs for part in (file, text or "")]
    return [sys.executable, "-m", "mmedge.profiling.layers.instructions", str(bundle), str(repeats), *texts]


def with_perf(command: Sequence[str]) -> tuple[int | None, str]:
    """The processor's own count: exact within a thousandth, where the kernel allows it and the machine has one."""
    done, reason = _run(["perf", "stat", "-x,", "-e", "instructions:u", "--", *command])
    if done is None:
        return None, reason
    if found := re.search(r"^(\d+),[^,]*,instructions:u", done.stderr, re.MULTILINE):
        return int(found[1]), ""
    if "<not" in done.stderr:
        return None, "this machine counts no instructions"
    if done.returncode and "perf_event_paranoid" in done.stderr:
        return None, "the kernel does not allow it (perf_event_paranoid)"
    raise _failed(done)


def with_valgrind(command: Sequence[str]) -> tuple[int | None, str]:
    """Counted by an emulator: always the same, and slow."""
    with tempfile.TemporaryDirectory() as folder:
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        done, reason = _run([*tool, *command])
    if done is None:
        return None, reason
    if not done.returncode and (found := re.search(r"Collected : (\d+)", done.stderr)):
        return int(found[1]), ""
    if "valgrind:" in done.stderr or "unhandled instruction" in done.stderr:
        return None, "valgrind cannot run this program"
    raise _failed(done)


METHODS: dict[str, Count] = {"perf stat": with_perf, "valgrind": with_valgrind}
"""In the order in which they are tried."""


def _run(command: Sequence[str]) -> tuple[subprocess.CompletedProcess[str] | None, str]:
    """The command in a calm environment, or why there is no result."""
    try:
        done = subprocess.run(command, env=os.environ | _CALM, capture_output=True, text=True, timeout=_ALLOWED)
    except (FileNotFoundError, PermissionError):
        return None, f"`{command[0]}` is not installed"
    except subprocess.TimeoutExpired:
        return None, f"it took longer than {_ALLOWED:.0f} s"
    return done, ""


def _failed(done: subprocess.CompletedProcess[str]) -> BackendError:
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return BackendError(f"counting instructions of `{done.args[0]}` failed: {last[:300]}")


def main(arguments: Sequence[str]) -> None:
    """Do the work that is counted."""
    bundle, repeats, *texts = arguments
    files = [(read_picture(Path(file)), text or None) for file, text in zip(texts[::2], texts[1::2], strict=True)]
    work(open_bundle(Path(bundle)), files, int(repeats))


if __name__ == "__main__":
    main(sys.argv[1:])
