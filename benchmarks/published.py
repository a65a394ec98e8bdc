"""Runs as they are committed: without the folders of the machine that made them, small, and with their report."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from msgspec.structs import replace

from mmedge.profiling.keep import encode_run, write_run
from mmedge.profiling.run import Run, Sample
from mmedge.profiling.showing.html.page import page

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "benchmarks" / ".work"
RESULTS = ROOT / "benchmarks" / "results"
LARGEST = 2_000_000
SHORTENED = "x-shortened"


def publish(run: Run, file: str, report: str, largest: int = LARGEST) -> None:
    """Write ``results/file`` of at most so many bytes, and the report of all of the run beside it."""
    portable = without_folders(run)
    write_run(shortened(portable, largest), RESULTS / file)
    (RESULTS / report).write_text(page(portable))


def without_folders(run: Run, root: Path = ROOT) -> Run:
    """Bundles and pictures by their path inside of the repository."""

    def inside(path: str) -> str:
        return path.removeprefix(f"{root}/")

    candidates = (
        replace(each, bundle=inside(each.bundle), command=tuple(map(inside, each.command))) for each in run.candidates
    )
    items = tuple(replace(item, file=inside(item.file)) for item in run.inputs.items)
    inputs = replace(run.inputs, source=inside(run.inputs.source), items=items)
    return replace(run, candidates=tuple(candidates), inputs=inputs)


def shortened(run: Run, largest: int) -> Run:
    """The run with as many of its rounds as fit; its results are still those of all rounds, and a note says so."""
    for step in count(1):
        kept = run if step == 1 else _every(run, step)
        if len(encode_run(kept)) <= largest:
            return kept
        if not kept.samples:
            raise SystemExit(f"a run without samples is larger than {largest} bytes already")
    raise AssertionError("counting ends never")


def _every(run: Run, step: int) -> Run:
    """Whole rounds, so that what is left is still paired; of other phases every so many answers of each candidate."""
    seen: dict[tuple[int, str], int] = {}

    def stays(sample: Sample) -> bool:
        number = seen[sample.c, sample.phase] = seen.get((sample.c, sample.phase), -1) + 1
        return (sample.round if sample.phase == "round" else number) % step == 0

    samples = tuple(replace(sample, spans=()) for sample in run.samples if stays(sample))
    note = f"1 of {step} rounds and of other answers is kept here, without spans; the results are those of all"
    return replace(
        run,
        samples=samples if step < len(run.samples) else (),
        sentinel=tuple(row for row in run.sentinel if row.round % step == 0),
        host=tuple(row for row in run.host if row.round % step == 0),
        notes=run.notes | {SHORTENED: note},
    )
