"""``mmedge layers``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from mmedge.profiling.layers.layers import Seen, Side
    from mmedge.profiling.layers.recorded import Recorded


def layers(
    bundle: Path,
    other: Path | None = None,
    /,
    *,
    backend: str | None = None,
    inputs: str | None = None,
    task: str | None = None,
    threads: int = 0,
    top: int = 25,
    trtexec: str | None = None,
    json: bool = False,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
) -> None:
    """Show where the time of an answer goes, node by node under ONNX names; of two bundles, or of one on two engines,
    what is slower and what is less exact.

    Args:
        bundle: A folder that `mmedge export` wrote.
        other: Another one of the same model, to be compared with the first.
        backend: Engines, as in onnxruntime or onnxruntime,openvino; without it those the target names.
        inputs: A folder or list of pictures, as for `mmedge profile`; without it the first bundle's golden samples.
        task: caption or ask, for --inputs.
        threads: CPU threads; 0 means all cores.
        top: Layers to show.
        trtexec: Show what TensorRT's own tool measured instead: COMPONENT=FILE of --exportProfile, and after a comma
            FILE of --exportLayerInfo.
        json: Print everything as JSON.
        output: JSON file to keep it in.
    """
    from mmedge.commands.profile import ProgressLine
    from mmedge.core.whole_file import check_place, write_whole
    from mmedge.errors import UsageError
    from mmedge.profiling.layers.layers import see

    if top < 1:
        raise UsageError(f"--top is {top}, it must be at least 1", hint="--top 10")
    if output:
        check_place(output)
    if trtexec:
        _show_trtexec(bundle, trtexec, top, json)
        return
    sides = _sides([path for path in (bundle, other) if path], (backend or "").split(","), threads)
    with ProgressLine() as say:
        say("answers to be taken apart")
        asked = _asked(bundle, inputs, task) if inputs else ()
        seen = see(sides, asked, say)
    text = _json(seen, sides)
    if output:
        write_whole(output, text)
    if json:
        print(text.decode())
        return
    _show(seen, sides, top)


def _sides(paths: list[Path], backends: list[str], threads: int) -> list[Side]:
    from mmedge.core import find
    from mmedge.core.bundle import open_bundle
    from mmedge.errors import UsageError
    from mmedge.profiling.layers.layers import Side

    for name in filter(None, backends):
        find.backend(name)
    sides = [Side(open_bundle(path), name or None, threads) for path in paths for name in backends]
    if len(sides) > 2:
        raise UsageError(
            f"{len(paths)} bundles on {len(backends)} engines are {len(sides)} sides, two can be compared",
            hint="name two bundles, or one with two engines",
        )
    return sides


def _asked(bundle: Path, inputs: str, task: str | None) -> tuple[Recorded, ...]:
    from tempfile import TemporaryDirectory

    from mmedge.core.bundle import open_bundle
    from mmedge.profiling.inputs import inputs_of
    from mmedge.profiling.layers.recorded import MOST, recorded_of

    with TemporaryDirectory(prefix="mmedge-pictures-") as folder:
        items = inputs_of([bundle], inputs, task, Path(folder), MOST).items
        return recorded_of(open_bundle(bundle), [(Path(item.file), item.text) for item in items])


def _show(seen: Seen, sides: list[Side], top: int) -> None:
    from mmedge.profiling.layers.layer_tables import about, table, two_sides
    from mmedge.profiling.layers.layers import pairs

    lines = table(seen.layers, top) if len(sides) == 1 else two_sides(pairs(seen), _names(seen, sides), top)
    print("\n".join([*lines, *about(seen)]))


def _names(seen: Seen, sides: list[Side]) -> list[str]:
    return [
        f"{side.bundle.path.name} on {'+'.join(dict.fromkeys(profile.engines.values()))}"
        for side, profile in zip(sides, seen.profiles, strict=True)
    ]


def _json(seen: Seen, sides: list[Side]) -> bytes:
    import msgspec

    told = {
        "sides": [
            {"bundle": side.bundle.path.name, "digest": side.bundle.digest, "engines": each.engines}
            | {"factors": each.factors, "steps": each.steps}
            for side, each in zip(sides, seen.profiles, strict=True)
        ],
        "peaks": seen.peaks,
        "not_counted": seen.unknown,
        "layers": seen.layers,
    }
    return msgspec.json.format(msgspec.json.encode(told))


def _show_trtexec(bundle: Path, trtexec: str, top: int, json: bool) -> None:
    import msgspec

    from mmedge.core.bundle import open_bundle
    from mmedge.errors import UsageError
    from mmedge.profiling.layers.layer_tables import table
    from mmedge.profiling.layers.layers import trtexec_layers

    component, separator, files = trtexec.partition("=")
    if not separator:
        raise UsageError(f"`{trtexec}` names no component", hint="--trtexec encoder=profile.json,layers.json")
    profile, _, names = files.partition(",")
    found = trtexec_layers(
        open_bundle(bundle), component, Path(profile).read_bytes(), Path(names).read_bytes() if names else None
    )
    print(msgspec.json.encode(found).decode() if json else "\n".join(table(found, top)))
