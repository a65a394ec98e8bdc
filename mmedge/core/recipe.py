"""What a user asks an export for: one reviewed TOML file, validated whole before anything is downloaded."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from mmedge.core.ports import Span
from mmedge.errors import UsageError

PRECISIONS = ("float32", "float16", "int8", "int8-weights", "int4-weights")
"""``int8`` quantizes weights and activations from calibration data; ``*-weights`` only the weights."""

METHODS = ("minmax", "percentile", "entropy")
"""Of taking a range from recorded values."""


class ComponentPlan(Struct, frozen=True, forbid_unknown_fields=True):
    """How one component is made."""

    name: str
    precision: str
    keep: tuple[str, ...] = ()
    """Patterns (``fnmatch``) of node names that stay in floating point."""
    sizes: dict[str, Span] = {}
    """Ranges of sizes that vary, narrower than the family's: ``total = [1, 32, 128]`` makes room for 128 tokens."""


class Calibration(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the ranges of static int8 come from."""

    files: str
    """A folder of pictures, or a CSV or JSONL file with an ``image`` and optionally a ``question`` column; a relative
    path is looked up beside the recipe, then among mmedge's own sets."""
    samples: int = 128
    method: str = "minmax"
    """One of `METHODS`."""


class LabelSet(Struct, frozen=True, forbid_unknown_fields=True):
    """What pictures shall be told apart by, once and for all: the device then needs no text tower."""

    file: str
    """One label a line; a relative path is looked up beside the recipe."""
    templates: tuple[str, ...] = ()
    """Texts made of a label, such as ``a photo of {}``; of several the mean is taken."""


class Acceptance(Struct, frozen=True, forbid_unknown_fields=True):
    """What an export may lose against torch; below it the export fails."""

    cosine: float
    """Lowest cosine of any output of any component on any sample."""
    answers: float
    """Smallest share of golden answers that are token for token those of torch."""
    max_abs: float | None = None
    """Largest absolute difference of any output, where the precision makes it meaningful (float32)."""


class Recipe(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole request; command-line options replace single fields of it."""

    name: str
    model: str
    """A folder, a Hub name, or ``builtin:NAME``."""
    target: str = "cpu"
    title: str = ""
    revision: str = "main"
    family: str | None = None
    """Checked against the checkpoint when given."""
    precision: str | None = None
    """A precision or a preset of the target, for components that ``component`` does not name; the target's own choice
    where nothing is said."""
    component: tuple[ComponentPlan, ...] = ()
    calibration: Calibration | None = None
    accept: Acceptance | None = None
    labels: LabelSet | None = None


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; a mistake is named with its place.

    Raises:
        UsageError: the file cannot be read or says something a recipe cannot say.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except OSError as error:
        raise UsageError(f"cannot read the recipe `{path}`: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe `{path}`: {error}", hint="`mmedge recipes` lists recipes that work") from error
