"""mmedge beside `transformers` on a full-size BLIP captioner with random weights, in one interleaved run.

    python benchmarks/blip_base.py

Makes the checkpoint, the bundles and the environment of `transformers` under ``benchmarks/.work`` unless they are
there. `transformers` in float32 and bfloat16 and the bundles caption the same pictures in turns, 30 tokens each. Writes
``results/blip_base.json`` and ``results/blip_base_report.html``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import environment
from published import ROOT, WORK, publish

import mmedge
from mmedge.profiling.candidates import candidates_of
from mmedge.profiling.extras import extras_of
from mmedge.profiling.inputs import inputs_of
from mmedge.profiling.profile import Settings, profile
from mmedge.profiling.run import Candidate

CHECKPOINT = WORK / "blip_base"
RECIPE = ROOT / "benchmarks" / "workloads" / "blip_base.toml"
LIMIT = 30
PEER_PRECISIONS = ("float32", "bfloat16")
"""The first is the baseline, whose answers are the model's own; the other one is faster on some processors."""


def peer(dtype: str) -> Candidate:
    """`transformers` on the checkpoint itself."""
    size = sum(file.stat().st_size for file in CHECKPOINT.iterdir())
    command = (*environment.command("transformers_blip"), dtype)
    name = f"transformers {dtype}"
    return Candidate(name, str(CHECKPOINT), "", None, {"all": dtype}, size, command=command)


def prepared(fresh: bool) -> list[Path]:
    """The checkpoint, and its bundles: float32 and int8 for any CPU, int8 with both engines for x86-64."""
    if not (CHECKPOINT / "model.safetensors").exists():
        maker = ROOT / "benchmarks" / "models" / "blip_base.py"
        subprocess.run([sys.executable, maker, CHECKPOINT], check=True)
    bundles = []
    for target, precision in (("cpu", "float32"), ("cpu", "int8"), ("x86-64", "int8")):
        bundles.append(WORK / f"blip-{precision}-{target}.bundle")
        if fresh or not bundles[-1].exists():
            options = {"recipe": RECIPE, "target": target, "precision": precision}
            mmedge.export(str(CHECKPOINT), output=bundles[-1], force=True, **options)
    return bundles


def candidates(bundles: list[Path]) -> list[Candidate]:
    ours = (*candidates_of(bundles[:2], ["onnxruntime", "openvino"]), *candidates_of(bundles[2:]))
    return [*map(peer, PEER_PRECISIONS), *ours]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=900.0, help="seconds for the rounds")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--limit", type=int, default=LIMIT, help="tokens of an answer")
    parser.add_argument("--fresh", action="store_true", help="export the bundles anew")
    parser.add_argument("--try", action="store_true", dest="trying", help="write nothing into results")
    options = parser.parse_args()
    bundles = prepared(options.fresh)
    with tempfile.TemporaryDirectory() as folder:
        found = profile(
            candidates(bundles),
            inputs_of(bundles, None, "caption", Path(folder)),
            Settings(budget_s=options.budget, processes=options.processes, limit=options.limit),
            extras_of(),
            save=WORK / "blip_base_run.json",
            say=lambda line: print(line, file=sys.stderr),
        )
    if not options.trying:
        publish(found, "blip_base.json", "blip_base_report.html")


if __name__ == "__main__":
    main()
