"""``mmedge pack``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def pack(
    bundle: Path,
    /,
    *,
    device: Annotated[str, Parameter(name=("--for",))],
    output: Annotated[Path, Parameter(name=("--output", "-o"))],
    wheels: Path | None = None,
    force: bool = False,
    json: bool = False,
) -> None:
    """Put a bundle and everything that installs it on a device into one archive.

    The archive has the bundle, mmedge itself, the packages that it needs to the digit, an install script for a device
    without a network, and a file that makes a container of the same. It is the same for the same content.

    Args:
        bundle: A folder that `mmedge export` wrote.
        device: What it is for: jetson.
        output: The tar archive.
        wheels: A folder of wheels that travel along; without it the device takes packages from the network.
        force: Replace an archive that is there already.
        json: Print what was packed as JSON.
    """
    import msgspec

    from mmedge.core.bundle import open_bundle
    from mmedge.runtime.packing import pack as write

    packed = write(open_bundle(bundle), device, output, wheels=wheels, force=force)
    if json:
        print(msgspec.json.format(msgspec.json.encode(packed)).decode())
        return
    for warning in packed.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    content = f"{packed.files} files, mmedge and {packed.wheels} other wheels among them"
    print(f"{packed.path}  {packed.size / 1e6:.1f} MB, {content}")
    print(f"sha256 {packed.sha256}")
