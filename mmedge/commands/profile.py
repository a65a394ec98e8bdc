"""``mmedge profile``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

WIDTH = 79
"""A terminal of 80 columns would begin a new line after one more."""


def profile(
    *bundles: Path,
    backends: str | None = None,
    pictures: Path | None = None,
    task: str | None = None,
    rounds: int | None = None,
    warmup: int = 5,
    sittings: int = 5,
    threads: int = 0,
    limit: int | None = None,
    seed: int = 0,
    json: bool = False,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
) -> None:
    """Compare bundles and engines on this machine: time by stage, memory, start and answers.

    Args:
        bundles: Folders that `mmedge export` wrote; the first is what the others are compared with.
        backends: Engines to run each bundle on, as in onnxruntime,openvino; without it those its target names.
        pictures: A folder of pictures, or a CSV or JSONL list with an image column and optionally question, answer
            and caption columns, by which answers are judged. Without it the bundle's own samples are used.
        task: caption or ask; without it what the samples of the bundle say, or caption if all bundles can.
        rounds: In each round every candidate answers one picture; without it as many as fit a minute.
        warmup: Answers of every fresh process that do not count.
        sittings: Groups of fresh processes that the rounds are spread over.
        threads: CPU threads of each candidate; 0 means all cores.
        limit: Longest answer, in tokens.
        seed: Of the order in which candidates answer.
        json: Print everything that was measured as JSON.
        output: JSON file to keep it in, written every few rounds.
    """
    import msgspec

    from mmedge.errors import UsageError
    from mmedge.profiling.candidates import candidates_of
    from mmedge.profiling.profile import profile as measure
    from mmedge.profiling.queries import TASKS, queries_of
    from mmedge.profiling.show import lines

    if task not in (None, *TASKS):
        raise UsageError(f"there is no task `{task}`", hint=f"it is one of {', '.join(TASKS)}")
    candidates = candidates_of(bundles, [name for name in (backends or "").split(",") if name])
    with ProgressLine() as say:
        found = measure(
            candidates,
            queries_of(bundles, pictures, task),
            rounds=rounds,
            warmup=warmup,
            sittings=sittings,
            threads=threads,
            limit=limit,
            seed=seed,
            save=output,
            say=say,
        )
    if json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(lines(found)))


class ProgressLine:
    """What is being done, on standard error where that is a terminal: one line that changes and goes at the end."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    def __call__(self, line: str) -> None:
        if self.live:
            print(f"\r{line[:WIDTH]:<{WIDTH}}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            print(f"\r{'':<{WIDTH}}\r", end="", file=sys.stderr, flush=True)
