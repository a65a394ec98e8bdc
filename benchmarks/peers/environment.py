"""Virtual environments of peers, so that none sees the libraries of mmedge or of another.

    python benchmarks/peers/environment.py transformers_blip

Made under ``benchmarks/.work/peers`` from the peer's ``.txt`` and mmedge without extras, within the constraints of this
repository, or those of ``NAME.constraints`` for a peer that needs other versions; made anew when one of these changes,
or what mmedge itself depends on.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
WORK = ROOT / "benchmarks" / ".work" / "peers"
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"


def command(name: str, work: Path = WORK) -> tuple[str, ...]:
    """What starts the worker of a peer, its environment made first where that is needed.

    Workers are told by variables to import what their parent would import: this one is to hear nothing of that.
    """
    return str(python_of(name, work)), "-E", str(script_of(name))


def python_of(name: str, work: Path = WORK) -> Path:
    """The interpreter of a peer's environment, which is whole."""
    folder = work / name
    stamp, python = folder / "made", folder / "bin" / "python"
    wanted = _digest(name)
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True, symlinks=True)
        needed = ["--requirement", _requirements_of(name), "--editable", ROOT]
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--constraint", _constraints_of(name), *needed], check=True)
        stamp.write_text(wanted)
    return python


def script_of(name: str) -> Path:
    """The peer itself."""
    if not (script := PEERS / f"{name}.py").exists() or not _requirements_of(name).exists():
        known = ", ".join(sorted(path.stem for path in PEERS.glob("*.txt")))
        raise SystemExit(f"there is no peer `{name}`, only: {known}")
    return script


def _requirements_of(name: str) -> Path:
    return PEERS / f"{name}.txt"


def _constraints_of(name: str) -> Path:
    own = PEERS / f"{name}.constraints"
    return own if own.exists() else CONSTRAINTS


def _digest(name: str) -> str:
    """Of all that decides what is installed."""
    script_of(name)
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    texts = (_requirements_of(name).read_text(), _constraints_of(name).read_text(), *own, sys.version)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def main() -> None:
    for name in sys.argv[1:]:
        print(*command(name))


if __name__ == "__main__":
    main()
