"""Which family a checkpoint is of; where it is of none, which are the nearest."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmedge.core import find
from mmedge.core.family import Family
from mmedge.errors import ModelError

NEAREST = 3
"""Families that are named instead of an unknown one."""


def family_of(raw: dict[str, Any], folder: Path) -> Family:
    """By ``model_type`` and ``architectures`` of config.json.

    Raises:
        ModelError: mmedge does not know it, or does not export it.
    """
    kind, architectures, known = raw.get("model_type"), raw.get("architectures"), find.names("families")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    if kind not in known:
        close = nearest(str(kind), str(named))
        raise ModelError(
            f"`{folder}` is a model of type `{kind}`, which mmedge does not know",
            hint=f"{'nearest' if close else 'known'}: {', '.join(close or known)}",
        )
    family = find.family(str(kind))
    if named not in family.architectures:
        raise ModelError(
            f"`{folder}` is a `{named}`, which the family `{kind}` does not export",
            hint=f"it exports: {', '.join(family.architectures)}",
        )
    if "quantization_config" in raw:
        raise ModelError(
            f"`{folder}` is quantized already", hint="export the checkpoint that it was quantized from instead"
        )
    return family


def nearest(kind: str, architecture: str) -> list[str]:
    """Families whose name is like ``kind``, then those that export something called almost like ``architecture``."""
    known = find.names("families")
    exported = {_short(name): family for family in known for name in find.family(family).architectures}
    by_architecture = [exported[name] for name in get_close_matches(_short(architecture), exported, NEAREST)]
    return list(dict.fromkeys((*get_close_matches(kind, known, NEAREST), *by_architecture)))[:NEAREST]


def _short(architecture: str) -> str:
    """Without what nearly all of them have in common."""
    return architecture.removesuffix("ForConditionalGeneration").removesuffix("Model")
