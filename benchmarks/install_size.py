"""Size on disk of a device-side install, by package: here with onnxruntime, and for a Jetson, which has its engine.

Writes benchmarks/results/install_size.json:  python benchmarks/install_size.py
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "install_size.json"
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


PLATFORMS = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 26, 27, 28, 34, 35)]
JETSON = ("--platform=manylinux2014_aarch64", *PLATFORMS, "--python-version=3.10", "--only-binary=:all:")
"""JetPack 6; pip compiles nothing for another Python, so the figure is without compiled files."""


def install(folder: Path, extra: str, *options: str) -> None:
    """The wheel with all that it needs, into an empty folder."""
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    wheel = next(folder.glob("mmedge-*.whl"))
    pip("install", "--quiet", "--target", folder / "site", *options, f"{wheel}{extra}")


def size_mb(distribution: Distribution) -> float:
    """What its files take, compiled ones included, in units of 10^6 bytes."""
    files = {Path(str(distribution.locate_file(file))) for file in distribution.files or ()}
    compiled = {path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc" for path in files}
    return sum(path.stat().st_size for path in files | compiled if path.is_file()) / 1e6


def measure(what: str, machine: str, extra: str, *options: str) -> dict[str, object]:
    """One install, its packages from the largest to the smallest."""
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), extra, *options)
        site = Path(folder) / "site"
        found = [(each.name, each.version, size_mb(each)) for each in distributions(path=[str(site)])]
        whole = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6
    found.sort(key=lambda row: -row[2])
    packages = [{"name": name, "version": version, "mb": round(mb, 2)} for name, version, mb in found]
    return {"what": what, "machine": machine, "total_mb": round(whole, 1), "packages": packages}


def main() -> None:
    """Install, measure, print and write."""
    machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    with_onnxruntime = measure(
        "pip install mmedge[onnxruntime] into an empty folder, compiled files included; 1 MB is 10^6 bytes",
        machine,
        "[onnxruntime]",
        "-c",
        str(CONSTRAINTS),
    )
    jetson = measure(
        "pip install mmedge for a Jetson, whose TensorRT comes with JetPack, without compiled files",
        "aarch64, Linux, Python 3.10",
        "",
        "--no-compile",
        *JETSON,
    )
    result = {**with_onnxruntime, "jetson": jetson}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
