"""What a check finds: where, how bad, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from mmedge.core.target import Stack, Target
from mmedge.errors import BundleError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""An error: the engine cannot be built, does not fit, or gives wrong values. A warning: it is slow or inexact, or that
cannot be decided here."""


class Finding(Struct, frozen=True):
    """One thing that is wrong with one graph."""

    check: str
    """``<kind>/<rule>``: stable, for scripts."""
    severity: Severity
    component: str
    message: str
    hint: str
    node: str = ""
    module: str = ""
    """The torch module that the node was traced from."""
    stacks: tuple[str, ...] = ()
    """System software of the target that it concerns."""


class Sum(Struct, frozen=True):
    """A part of the memory plan, and how it was reckoned."""

    what: str
    mib: float
    how: str


class MemoryPlan(Struct, frozen=True):
    """Peak memory in MiB: while engines are built, one at a time, and while the bundle runs."""

    build: tuple[Sum, ...]
    run: tuple[Sum, ...]
    memory_mb: int

    @property
    def build_mib(self) -> float:
        return sum(part.mib for part in self.build)

    @property
    def run_mib(self) -> float:
        return sum(part.mib for part in self.run)


class Headroom(Struct, frozen=True):
    """How far the values of a float16 graph were from where float16 ends, on the calibration data."""

    component: str
    values: int
    """That are computed in float16."""
    recorded: int
    largest: float
    tensor: str
    node: str
    """That makes the largest."""


class Findings(Struct, frozen=True):
    """The outcome of a check, worst first."""

    target: str
    stacks: tuple[Stack, ...]
    graphs: tuple[str, ...]
    found: tuple[Finding, ...]
    memory: MemoryPlan
    float16: tuple[Headroom, ...] = ()

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.found if finding.severity == severity)

    @property
    def summary(self) -> str:
        """Such as ``2 errors, 1 warning in 3 graphs for JetPack 6.2 (TensorRT 10.3.0)``."""
        numbers = f"{_counted(len(self.of('error')), 'error')}, {_counted(len(self.of('warning')), 'warning')}"
        places = ", ".join(f"{stack.name} (TensorRT {stack.tensorrt})" for stack in self.stacks) or f"`{self.target}`"
        return f"{numbers} in {_counted(len(self.graphs), 'graph')} for {places}"


class Found(NamedTuple):
    """A finding, and the stack it was made for; "" where it holds for every one."""

    finding: Finding
    stack: str = ""


def gather(found: Iterable[Found], target: Target) -> tuple[Finding, ...]:
    """Each finding once with all its stacks, worst first, otherwise in the order found."""
    stacks: dict[Finding, list[str]] = {}
    for finding, stack in found:
        names = [stack] if stack else [each.name for each in target.stacks]
        known = stacks.setdefault(finding, [])
        known += [name for name in names if name not in known]
    merged = [replace(finding, stacks=tuple(names)) for finding, names in stacks.items()]
    return tuple(sorted(merged, key=lambda finding: SEVERITIES.index(finding.severity)))


def refuse(findings: Findings) -> None:
    """Raises BundleError with the first error, if there is one."""
    errors = findings.of("error")
    if not errors:
        return
    first, more = errors[0], len(errors) - 1
    where = f"`{first.component}`" + (f", node `{first.node}`" if first.node else "")
    rest = f" (and {_counted(more, 'more error')})" if more else ""
    raise BundleError(f"{where}: {first.message}{rest}", hint=first.hint)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
