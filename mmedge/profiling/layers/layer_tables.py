"""Layers and roofs as lines of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

from mmedge.profiling.layers.layers import Pair, Seen
from mmedge.profiling.run import Layer, Peaks, Roof

_ONE = "{:<30.30} {:<12.12} {:>8} {:>5} {:>7} {:>7} {:>5}"
_TWO = "{:<41.41} {:>8} {:>8} {:>6} {:>6} {:>6}"
_ROOF = "{:<11} {:>9} {:>9} {:>9} {:>10} {:>6}  {}"
_WIDTH = 80
NONE = "-"


def table(layers: Sequence[Layer], top: int) -> Iterator[str]:
    """The slowest layers of a bundle."""
    yield _ONE.format("layer", "kernel", "ms", "share", "GFLOP", "MB", "roof").rstrip()
    for layer in layers[:top]:
        yield _ONE.format(
            _tail(name_of(layer), 30),
            layer.op,
            f"{layer.us / 1e3:.3f}",
            f"{layer.share:.1%}" if layer.share < 0.9995 else "100%",
            NONE if layer.flops is None else f"{layer.flops / 1e9:.3f}",
            NONE if layer.bytes is None else f"{layer.bytes / 1e6:.2f}",
            NONE if layer.roof is None else _percent(layer.roof),
        ).rstrip()
    yield from _rest(layers[top:])


def two_sides(found: Sequence[Pair], names: Sequence[str], top: int) -> Iterator[str]:
    """What two sides take for the same nodes of the graph, and how far the second one's values are off."""
    yield f"A  {names[0]}"
    yield f"B  {names[1]}"
    yield _TWO.format("layer", "A ms", "B ms", "B/A", "of B", "SNR dB").rstrip()
    whole = sum(layer.us for pair in found for layer in pair.two)
    for pair in found[:top]:
        times = [sum(layer.us for layer in side) for side in pair]
        noise = [layer.snr_db for layer in pair.two if layer.snr_db is not None]
        yield _TWO.format(
            _tail(name_of(max((*pair.one, *pair.two), key=lambda layer: layer.us)), 41),
            f"{times[0] / 1e3:.3f}" if pair.one else NONE,
            f"{times[1] / 1e3:.3f}" if pair.two else NONE,
            f"{times[1] / times[0]:.2f}" if pair.one and pair.two and times[0] else NONE,
            f"{times[1] / whole:.1%}" if pair.two and whole else NONE,
            f"{min(noise):.1f}" if noise else NONE,
        ).rstrip()
    yield from _rest([layer for pair in found[top:] for layer in (*pair.one, *pair.two)])
    ones = sum(layer.us for pair in found for layer in pair.one)
    ratio = f"{whole / ones:.2f}" if ones else NONE
    yield _TWO.format("all", f"{ones / 1e3:.3f}", f"{whole / 1e3:.3f}", ratio, "", "").rstrip()


def about(seen: Seen) -> Iterator[str]:
    """How the times came about."""
    for profile in seen.profiles:
        factors = ", ".join(
            f"{component} x{factor:.2f} ({profile.engines[component]})" for component, factor in profile.factors.items()
        )
        yield from _wrapped(f"counted times were scaled to undisturbed ones: {factors}")
    if seen.unknown:
        yield from _wrapped(f"operations not counted of {len(seen.unknown)} nodes: {', '.join(seen.unknown[:3])} ...")


def peak_lines(found: Peaks) -> Iterator[str]:
    """What the machine can do."""
    yield (
        f"memory  {found.triad_gbs:.1f} GB/s triad, {found.read_gbs:.1f} GB/s reading  "
        f"({found.threads} threads, cache {found.cache / (1 << 20):.0f} MiB)"
    )
    for name, rate in found.copy_gbs.items():
        yield f"copying {name:<32} {rate:8.1f} GB/s"
    for name, rate in found.gemm_gflops.items():
        yield f"product {name:<32} {rate:8.1f} GFLOP/s"


def roof_lines(roofs: Iterable[Roof], names: Sequence[str]) -> Iterator[str]:
    """How close each stage comes on a golden sample, and the time that is still on the table."""
    by_candidate: dict[int, list[Roof]] = {}
    for each in roofs:
        by_candidate.setdefault(each.c, []).append(each)
    for c, stages in by_candidate.items():
        yield ""
        yield names[c][:_WIDTH]
        yield _ROOF.format("stage", "GFLOP", "MB", "ms", "at best ms", "roof", "bound by").rstrip()
        for each in stages:
            yield _ROOF.format(
                each.stage,
                f"{each.flops / 1e9:.3f}",
                f"{each.bytes / 1e6:.1f}",
                f"{each.measured_ms:.3f}",
                f"{each.ceiling_ms:.3f}",
                _percent(each.share) if each.valid else NONE,
                f"{each.bound}{', in cache' if each.in_cache else ''}",
            ).rstrip()
        left = sum(max(each.measured_ms - each.ceiling_ms, 0.0) for each in stages)
        whole = sum(each.measured_ms for each in stages)
        yield f"still on the table: {left:.1f} of {whole:.1f} ms of the first golden sample"


def name_of(layer: Layer) -> str:
    """The ONNX node that a layer is best known by."""
    if not layer.onnx_names or layer.node in layer.onnx_names:
        return layer.node
    stem = [name for name in layer.onnx_names if layer.node.startswith(name)]
    return (stem or layer.onnx_names)[-1]


def _percent(share: float) -> str:
    return f"{share:.0%}" if share < 9.995 else ">999%"


def _rest(layers: Sequence[Layer]) -> Iterator[str]:
    if layers:
        yield f"and {len(layers)} more: {sum(layer.us for layer in layers) / 1e3:.3f} ms (--top shows them)"


def _tail(text: str, width: int) -> str:
    return text if len(text) <= width else f"…{text[1 - width :]}"


def _wrapped(text: str) -> Iterator[str]:
    yield from wrap(text, _WIDTH, subsequent_indent="  ")
