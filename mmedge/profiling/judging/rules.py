"""What a run must hold, as a TOML file: one ``[[rule]]`` for each bound."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

from mmedge.errors import UsageError
from mmedge.profiling.numbers.quantities import Kind, kind_of, read_quantity

RATIO = "ratio_median"

Stat: TypeAlias = Literal["ratio_median", "median", "p90", "p95", "p99", "p99.9", "mean", "max", "value"]


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """A bound that the whole interval of a metric must keep."""

    metric: str
    stat: Stat | None = None
    """Without it the ratio where there is a ``vs``, otherwise the median, or the value of what has none."""
    vs: Literal["baseline"] | None = None
    max: float | str | None = None
    """Such as 1.05 (of a ratio), ``40 ms`` or ``900MiB``; a number alone is in the metric's own unit."""
    min: float | str | None = None
    noninferior: float | None = None
    """Points of 100 by which a metric of quality may be worse than the baseline's."""
    candidate: str | None = None
    """Pattern of names, such as ``*int8*``. Without it everyone but the baseline and its twin; the baseline where it
    is alone."""
    inconclusive: Literal["fail", "warn"] | None = None
    """Without it what the whole file says."""

    def __post_init__(self) -> None:
        """Raises ValueError, which msgspec tells with its place."""
        if self.noninferior is not None:
            if (self.max, self.min, self.stat, self.vs) not in ((None,) * 4, (None, None, None, "baseline")):
                raise ValueError("`noninferior` compares with the baseline, and goes with no `max`, `min` or `stat`")
            read_quantity(self.noninferior, "number")
        elif self.max is None and self.min is None:
            raise ValueError(f"the rule for `{self.metric}` has no bound: give `max`, `min` or `noninferior`")
        if self.vs and self.stat not in (None, RATIO):
            raise ValueError(f'`vs` goes with `stat = "{RATIO}"`, not with `{self.stat}`')
        for bound in (self.max, self.min):
            if bound is not None:
                read_quantity(bound, self.kind)

    @property
    def is_ratio(self) -> bool:
        return self.stat == RATIO or (self.vs is not None and self.noninferior is None)

    @property
    def compares(self) -> bool:
        """With the baseline."""
        return self.is_ratio or self.noninferior is not None

    @property
    def kind(self) -> Kind:
        """Of its bounds."""
        return "number" if self.is_ratio else kind_of(self.metric)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The lowest and the highest value that is allowed."""
        low, high = (None if each is None else read_quantity(each, self.kind) for each in (self.min, self.max))
        return low, high

    def is_about(self, name: str) -> bool:
        """Whether ``candidate`` names it."""
        return self.candidate is None or fnmatchcase(name, self.candidate)


class Rules(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole file."""

    rule: tuple[Rule, ...]
    inconclusive: Literal["fail", "warn"] = "fail"
    """What becomes of a rule whose interval lies on both sides of its bound, where the rule itself does not say."""

    def __post_init__(self) -> None:
        """Raises ValueError where there is no rule, since nothing would ever be wrong."""
        if not self.rule:
            raise ValueError("there is no rule")


def load_rules(path: Path) -> Rules:
    """Read a file of rules; a mistake is named with its place.

    Raises:
        UsageError: the file cannot be read or says something that rules cannot say.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Rules)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise UsageError(f"cannot read the rules `{path}`: {reason}", hint="name a TOML file of rules") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error)
        hint = 'a rule is written as: [[rule]] metric = "answer_ms" vs = "baseline" max = 1.05, a line each'
        raise UsageError(f"rules `{path}`: {reason[:1].lower()}{reason[1:]}", hint=hint) from error
