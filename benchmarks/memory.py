"""Peak memory as `mmedge check` predicts it, beside what `mmedge profile` measures.

    python benchmarks/memory.py BUNDLE... [--backends onnxruntime,openvino] [--limit 16]

Each bundle answers its longest golden sample in a fresh process on each engine, weighed as a profile weighs (PSS); the
prediction is that for a conversation of as many tokens. Adds to benchmarks/results/memory.json by bundle and engine.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from mmedge.core.bundle import Bundle, open_bundle
from mmedge.core.manifest import Golden
from mmedge.export.check.run import check_bundle
from mmedge.profiling.machine.memory import weigh
from mmedge.profiling.messages import Ask, Load
from mmedge.profiling.workers import running

RESULT = Path(__file__).parent / "results" / "memory.json"
BOUND = 0.15
MIB = 1 << 20


def longest(bundle: Bundle) -> tuple[Golden, int]:
    """The golden sample with the most tokens before its answer, and how many."""
    lengths = {
        golden: len(np.load(bundle.path / golden.path / "inputs.npz")["tokens"]) for golden in bundle.manifest.golden
    }
    return max(lengths.items(), key=lambda item: item[1])


def measured(bundle: Bundle, backend: str, golden: Golden, limit: int, threads: int) -> dict[str, int | None]:
    """PSS by stage, MiB; the bundle is compiled in a process before."""
    order = Load(str(bundle.path), backend, threads)
    ask = Ask(golden.task, str(bundle.path / golden.path / "picture.png"), golden.question, limit)
    with running("compiling") as worker:
        worker.wait_until_started()
        worker.load(order)
    with running("weighed") as worker:
        rows = weigh(worker, 0, order, [ask])
    return {row.stage: row.pss and round(row.pss / MIB) for row in rows}


def compared(bundle: Bundle, backend: str, limit: int, threads: int) -> dict[str, Any]:
    """One bundle on one engine."""
    golden, length = longest(bundle)
    length += limit
    target = bundle.manifest.target
    target = replace(target, backends=dict.fromkeys(target.backends, backend))
    memory = check_bundle(bundle, target, length).memory
    stages = measured(bundle, backend, golden, limit, threads)
    return {
        "family": bundle.manifest.family,
        "precisions": {graph.component: graph.precision for graph in bundle.manifest.graphs},
        "tokens": length,
        "predicted_mib": round(memory.run_mib),
        "measured_mib": stages["total"],
        "parts_mib": {part.what: round(part.mib, 1) for part in memory.run},
        "stages_mib": stages,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--backends", default="onnxruntime,openvino")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {"compared": {}}
    result["machine"] = f"{platform.machine()}, {platform.system()}, {given.threads} threads"
    result["versions"] = {name: version(name) for name in ("onnxruntime", "openvino", "numpy", "tokenizers")}
    for path in given.bundles:
        bundle = open_bundle(path)
        for backend in given.backends.split(","):
            found = compared(bundle, backend, given.limit, given.threads)
            result["compared"][f"{path.name.removesuffix('.bundle')} {backend}"] = found
            RESULT.write_text(json.dumps(result, indent=1) + "\n")
            print(path.name, backend, found["predicted_mib"], found["measured_mib"], file=sys.stderr)
    far = [name for name, each in result["compared"].items() if abs(_error(each)) > BOUND]
    print(f"{len(result['compared']) - len(far)} within {BOUND:.0%}; not: {', '.join(far) or 'none'}", file=sys.stderr)


def _error(found: dict[str, Any]) -> float:
    return float(found["predicted_mib"] / found["measured_mib"] - 1)


if __name__ == "__main__":
    main()
