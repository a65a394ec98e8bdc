"""What a run says about the program that made it, and about how that was called."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mmedge import __version__
from mmedge.profiling.run import Made

_ROOT = Path(__file__).resolve().parents[2]


def made() -> Made:
    """This mmedge; of a checkout the commit too."""
    return Made(__version__, _commit(_ROOT))


def _commit(checkout: Path) -> str | None:
    if not (checkout / ".git").exists():
        return None
    try:
        head, changed = (
            subprocess.run(
                ["git", "-C", checkout, *arguments], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for arguments in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout of somebody else's
        return None
    return f"{head}+" if changed else head


def redacted(arguments: Sequence[str]) -> tuple[str, ...]:
    """A command line without the folders that files lie in: reports are sent to others."""
    return tuple(_last(argument) for argument in arguments)


def _last(argument: str) -> str:
    name, equals, value = argument.partition("=")
    shown = f"{name}={os.path.basename(value)}" if equals and "/" in value else os.path.basename(argument.rstrip("/"))
    return (shown if "/" in argument else argument).encode(errors="backslashreplace").decode()
