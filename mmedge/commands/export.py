"""``mmedge export``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from mmedge.core.report import Report, Stage


def export(
    model: str | None = None,
    *,
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    target: str | None = None,
    recipe: Path | None = None,
    precision: str | None = None,
    calibration: Path | None = None,
    labels: Path | None = None,
    template: tuple[str, ...] = (),
    force: bool = False,
    allow_nonfinite: bool = False,
    skip_bad: float = 0.0,
    json: bool = False,
) -> None:
    """Make a bundle of a model for a device: trace, quantize, compare with torch, pack.

    Args:
        model: A folder with a Hugging Face checkpoint, a Hub name such as owner/name, builtin:scenes or
            builtin:scenes-vlm; if none is given, the recipe's.
        output: Folder of the bundle.
        target: The device, as `mmedge targets` lists them; cpu if neither this nor the recipe names one.
        recipe: A TOML file that says more than these options do, or the name of one that `mmedge recipes` lists; that
            of the model itself is taken without asking.
        precision: float32, float16, int8, int8-weights, int4-weights, or a preset of the target.
        calibration: Pictures like those the device will see: a folder, or a CSV or JSONL list with an image column
            and optionally a question column.
        labels: Make a classifier of pictures of a model that embeds: a file with one label a line. The device then
            needs no text tower.
        template: The text made of a label, "a photo of {}" unless given; of several the mean is taken.
        force: Replace a bundle that is there already.
        allow_nonfinite: Export weights that are not finite all the same.
        skip_bad: Share of calibration samples that may be unreadable, such as 0.01; none unless said.
        json: Print the report as JSON.
    """
    import msgspec

    from mmedge.core import find
    from mmedge.core.writing import new_bundle
    from mmedge.needs import needs

    if target:
        find.target(target)
    with new_bundle(output, force=force):
        pass  # what cannot be written is refused at once, not after the seconds that importing torch takes
    with needs("export"):
        from mmedge.export.build import export as build

    report = build(
        model,
        output=output,
        target=target,
        recipe=recipe,
        precision=precision,
        calibration=calibration,
        labels=labels,
        templates=template,
        force=force,
        allow_nonfinite=allow_nonfinite,
        skip_bad=skip_bad,
        watcher=ProgressLines(),
    )
    if json:
        print(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        _show(report)


class ProgressLines:
    """One line per stage on standard error, with its time and peak memory; a stage under way shows its name."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()

    def begin(self, name: str) -> None:
        if self.live:
            print(f"{name} ...", end="\r", file=sys.stderr, flush=True)

    def end(self, stage: Stage) -> None:
        from textwrap import fill

        line = f"{stage.name:<29} {stage.seconds:7.1f} s {stage.peak_mb:6.0f} MB"
        indent = " " * (len(line) + 2)
        note = fill(stage.note, 80, initial_indent=f"{line}  ", subsequent_indent=indent) if stage.note else line
        print(note, file=sys.stderr, flush=True)


def _show(report: Report) -> None:
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{'component':<12} {'precision':<14} {'max abs':>10} {'cosine':>9}   against torch", file=sys.stderr)
    for seen in report.agreement:
        print(f"{seen.component:<12} {seen.precision:<14} {seen.max_abs:10.2e} {seen.cosine:9.6f}", file=sys.stderr)
    print(f"answers equal to torch: {report.answers.equal} of {report.answers.total}", file=sys.stderr)
    print(report.bundle)
