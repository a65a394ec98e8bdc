"""Which TensorRT on which device the doubles stand for."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

VARIABLE = "MMEDGE_DOUBLES"
VERSIONS = ("8.6", "10.3", "10.13", "10.16", "11.1")


@dataclass(frozen=True)
class Settings:
    """Everything that a test may choose."""

    version: str = "10.3"
    compute_capability: str = "8.7"
    memory_mb: int = 8192
    devices: int = 1
    capturable: bool = True
    """Whether engines may be recorded as a CUDA graph."""
    build_error: str = ""
    """What the builder logs before it gives up; empty lets it succeed."""
    build_memory_mb: int = 0
    """Memory of the host that the builder fills, besides the graph."""
    vague: bool = False
    """Whether engines know no size of an output before their inputs have sizes."""
    spoil: float = 0.0
    """Added to every floating output: an engine that computes something else than its graph."""


def from_environment() -> Settings:
    return Settings(**json.loads(os.environ[VARIABLE]))


def to_environment(settings: Settings) -> dict[str, str]:
    return {VARIABLE: json.dumps(asdict(settings))}
