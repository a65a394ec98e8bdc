"""What the kernel tells of this machine: which one it is, how it is doing, and what makes its numbers doubtful."""

from __future__ import annotations

from mmedge.profiling.circumstances import circumstances
from mmedge.profiling.health import Health
from mmedge.profiling.machines import machine_of

__all__ = ["Health", "circumstances", "machine_of"]
