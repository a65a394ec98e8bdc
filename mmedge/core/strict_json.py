"""JSON from strangers: what two readers could understand differently, or one could choke on, is refused."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from itertools import accumulate
from typing import Any, NoReturn

from mmedge.core.names import shown

_MOST_DIGITS = 40
"""Checkpoints write "no limit" as 1e30 spelled out; Python needs quadratic time for really long integers."""


def read_json(raw: bytes, *, deepest: int) -> Any:
    """Parse ``raw``.

    Raises:
        ValueError: it is not UTF-8 in normal form C, not JSON, nested more than ``deepest`` levels, or has a key twice,
            half a surrogate pair or a number that is not finite.
    """
    text = raw.decode("utf-8")
    if not unicodedata.is_normalized("NFC", text):
        raise ValueError("its characters are not in Unicode normal form C")
    if (depth := _depth(text)) > deepest:
        raise ValueError(f"it is nested {depth} levels deep, at most {deepest} are allowed")
    value = json.loads(
        text, object_pairs_hook=_unique, parse_int=_integer, parse_float=_finite, parse_constant=_refuse_constant
    )
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails for half a surrogate pair written as an escape
    return value


def _depth(text: str) -> int:
    """Nesting of all brackets outside strings, found before the parser recurses into them."""
    bare = re.sub(r'"[^"]*"', "", re.sub(r"\\.", "", text, flags=re.DOTALL))
    return max(accumulate(1 if mark in "[{" else -1 for mark in bare if mark in "[]{}"), default=0)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key `{shown(key)}` appears twice")
        found[key] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits, at most {_MOST_DIGITS} are allowed")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"the number {shown(digits)} is out of range")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
