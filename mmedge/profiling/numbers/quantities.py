"""Times, sizes and shares as people write them: ``40 ms``, ``900MiB``, ``95 %``; the metric says which it must be."""

from __future__ import annotations

import math
import re
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["time", "size", "energy", "number"]

UNITS: dict[Kind, dict[str, float]] = {
    "time": {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4},
    "size": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30},
    "energy": {"mJ": 1.0, "J": 1e3},
    "number": {"%": 0.01},
}
"""Times are kept as milliseconds, sizes as bytes, energy as millijoules."""

_WRITTEN = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z%]*)")
_SIZE = re.compile(r"(?:^|_)(?:pss|hwm|bytes|anon|file|gpu|rss|memory)$")
_NONE = "-"


def kind_of(metric: str) -> Kind:
    """What a metric counts, told by its name."""
    if metric.endswith("_ms"):
        return "time"
    if metric.endswith("_mj"):
        return "energy"
    return "size" if _SIZE.search(metric) else "number"


def read_quantity(written: float | str, kind: Kind) -> float:
    """In the unit that metrics of this kind are kept in, which a bare number has already.

    Raises:
        ValueError: it is no quantity of this kind, negative or not finite.
    """
    if isinstance(written, str):
        found = _WRITTEN.fullmatch(written.strip())
        units = UNITS[kind]
        if not found or (found[2] and found[2] not in units):
            raise ValueError(f"`{written}` is no {kind}: write a number, or one with {', '.join(units)}")
        written = float(found[1]) * (units[found[2]] if found[2] else 1.0)
    if not math.isfinite(written) or written < 0:
        raise ValueError(f"the bound {written} is negative or not finite")
    return written


def show_quantity(value: float | None, kind: Kind) -> str:
    """With its unit and three or four digits."""
    if value is None:
        return _NONE
    if kind == "number":
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    unit, scale = _unit(abs(value), kind)
    return f"{_digits(value / scale)} {unit}"


def show_interval(low: float | None, high: float | None, kind: Kind) -> str:
    """In brackets, with the unit of its upper end; empty where there is none."""
    if low is None or high is None or kind == "number":
        return "" if low is None and high is None else f"[{show_quantity(low, kind)}, {show_quantity(high, kind)}]"
    unit, scale = _unit(abs(high), kind)
    return f"[{_digits(low / scale)}, {_digits(high / scale)} {unit}]"


def _digits(value: float) -> str:
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"


def _unit(value: float, kind: Kind) -> tuple[str, float]:
    if kind == "time":
        return ("us", 1e-3) if 0 < value < 0.01 else ("ms", 1.0) if value < 1e4 else ("s", 1e3)
    if kind == "energy":
        return ("mJ", 1.0) if value < 1e3 else ("J", 1e3)
    return next(((unit, UNITS[kind][unit]) for unit in ("GiB", "MiB", "KiB") if value >= UNITS[kind][unit]), ("B", 1.0))
