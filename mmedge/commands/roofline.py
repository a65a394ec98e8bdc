"""``mmedge roofline``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmedge.profiling.run import Flag, Peaks, Roof


def roofline(*bundles: Path, backend: str | None = None, threads: int = 0, json: bool = False) -> None:
    """Show what this machine can do at most, and how close the stages of bundles come to it on a golden sample.

    Args:
        bundles: Folders that `mmedge export` wrote; without any, the peaks of the engines that are installed.
        backend: Run every graph on this engine instead of the target's choice.
        threads: CPU threads; 0 means all cores.
        json: Print everything as JSON.
    """
    import msgspec

    from mmedge.commands.profile import ProgressLine
    from mmedge.core.bundle import open_bundle
    from mmedge.profiling.layers.layer_tables import peak_lines, roof_lines
    from mmedge.profiling.layers.rooflines import machine_peaks, measured_roofs

    opened = [open_bundle(bundle) for bundle in bundles]
    flags: tuple[Flag, ...] = ()
    roofs: tuple[Roof, ...] = ()
    names: list[str] = []
    found: Peaks
    with ProgressLine() as say:
        if opened:
            found, roofs, names, flags = measured_roofs(opened, backend, threads, say)
        else:
            found = machine_peaks(backend, threads, say)
    if json:
        told = {"candidates": names, "peaks": found, "roofline": roofs, "flags": flags}
        print(msgspec.json.format(msgspec.json.encode(told)).decode())
        return
    lines = [*peak_lines(found), *roof_lines(roofs, names)]
    print("\n".join([*lines, *(f"warning: {flag.text}: {flag.advice}" for flag in flags)]))
