"""Wheels for a device, judged by their file names: whether they fit, and what they lack of a list of requirements."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from mmedge.errors import UsageError

GLIBC = {"3.10": 35, "3.12": 39}
"""Minor version of the C library of the systems that have this Python: Ubuntu 22.04 and 24.04."""

_NAME = re.compile(r"([^-]+)-([^-]+)(?:-\d[^-]*)?-([^-]+)-([^-]+)-([^-]+)\.whl")
_MANYLINUX = re.compile(r"manylinux(?:_2_(\d+)|2014)_aarch64")


class Wheel(NamedTuple):
    """A wheel by its file name."""

    file: str
    name: str
    """As the index spells it: lower case, with hyphens."""
    version: str
    pythons: tuple[str, ...]
    """Of `GLIBC`, those that can install it."""


def wheel_of(file: str) -> Wheel:
    """Read the name of a wheel for a Jetson.

    Raises:
        UsageError: it is no wheel, for another processor or Python, or one that does not work there.
    """
    found = _NAME.fullmatch(file)
    if not found:
        raise UsageError(f"`{file}` is not named as wheels are")
    name, version, python, abi, platform = found.groups()
    pythons = tuple(each for each in GLIBC if _fits(each, python.split("."), abi.split("."), platform.split(".")))
    if not pythons:
        raise UsageError(
            f"the wheel `{file}` does not fit: it is for {python}, {abi}, {platform}",
            hint=f"a Jetson needs wheels for any platform or aarch64, and for Python {' or '.join(GLIBC)}",
        )
    if normal(name) == "onnxruntime-gpu" and "manylinux" in platform:
        raise UsageError(
            f"the wheel `{file}` is that of the index, which has no kernels for the GPU of a Jetson",
            hint="leave it out, or take one that was built for JetPack",
        )
    return Wheel(file, normal(name), version, pythons)


def missing(requirements: Iterable[str], wheels: Iterable[Wheel], python: str) -> tuple[str, ...]:
    """Those of ``name==version`` that no wheel brings for a Python."""
    brought = {f"{wheel.name}=={wheel.version}" for wheel in wheels if python in wheel.pythons}
    return tuple(each for each in requirements if each not in brought)


def normal(name: str) -> str:
    """The one spelling of a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _fits(python: str, tags: list[str], abis: list[str], platforms: list[str]) -> bool:
    return any(_is_for(python, tag, abis) for tag in tags) and any(_runs(python, each) for each in platforms)


def _is_for(python: str, tag: str, abis: list[str]) -> bool:
    mine, minor = f"cp{python.replace('.', '')}", int(python.partition(".")[2])
    if tag in ("py3", mine):
        return "none" in abis or mine in abis or "abi3" in abis
    lowest = re.fullmatch(r"(?:cp|py)3(\d+)", tag)
    return bool(lowest and int(lowest[1]) <= minor and ({"abi3"} if tag.startswith("cp") else {"none"}) & {*abis})


def _runs(python: str, platform: str) -> bool:
    found = _MANYLINUX.fullmatch(platform)
    return platform in ("any", "linux_aarch64") or bool(found and int(found[1] or 17) <= GLIBC[python])
