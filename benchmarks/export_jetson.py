"""What an export of a full-size BLIP captioner for a Jetson takes on this machine: time and peak memory of each stage.

    python benchmarks/export_jetson.py [--target jetson]

Makes the checkpoint and the bundles under ``benchmarks/.work``, each export in a process of its own, and writes
``results/export_jetson.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import msgspec

from mmedge.runtime.device import this_device

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "benchmarks" / ".work"
CHECKPOINT = WORK / "blip_base"
RECIPE = ROOT / "benchmarks" / "workloads" / "blip_base.toml"
RESULTS = ROOT / "benchmarks" / "results" / "export_jetson.json"
PRECISIONS = ("float16", "int8")
PACKAGES = ("mmedge", "torch", "transformers", "onnx", "onnxruntime")


def export(target: str, precision: str) -> dict:
    """One export: its stages, its agreement with torch, and what it made."""
    bundle = WORK / f"blip-{precision}-{target}.bundle"
    options = (
        "--recipe",
        RECIPE,
        "--target",
        target,
        "--precision",
        precision,
        "--output",
        bundle,
        "--force",
        "--json",
    )
    started = time.perf_counter()
    command = [sys.executable, "-m", "mmedge", "export", CHECKPOINT, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{precision}: mmedge export ended with exit code {done.returncode}: {done.stdout.strip()}")
    report = json.loads(done.stdout)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": max(stage["peak_mb"] for stage in report["stages"]),
        "stages": report["stages"],
        "agreement": report["agreement"],
        "answers": report["answers"],
        "warnings": report["warnings"],
        "bundle_mb": round(sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) / 1e6, 1),
    }


def table(found: dict[str, dict]) -> Iterator[str]:
    """At most 80 columns."""
    for precision, each in found.items():
        yield f"{precision}: {each['seconds']} s with start-up, at most {each['peak_mb']:.0f} MiB"
        for stage in each["stages"]:
            line = f"  {stage['name']:<24}{stage['seconds']:>8.1f} s {stage['peak_mb']:>7.0f} MiB  {stage['note'][:32]}"
            yield line.rstrip()


def main() -> None:
    """Export, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="jetson")
    target = parser.parse_args().target
    if not CHECKPOINT.exists():
        subprocess.run([sys.executable, ROOT / "benchmarks" / "models" / "blip_base.py", CHECKPOINT], check=True)
    begun, load = datetime.now(timezone.utc), os.getloadavg()[0]
    found = {precision: export(target, precision) for precision in PRECISIONS}
    result = {
        "what": "mmedge export of a full-size BLIP captioner with random weights; its answers mean nothing",
        "target": target,
        "begun": begun.isoformat(timespec="seconds"),
        "machine": msgspec.to_builtins(this_device()),
        "processes_running": {"before": round(load, 1), "after": round(os.getloadavg()[0], 1)},
        "software": {name: version(name) for name in PACKAGES},
        "exports": found,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
