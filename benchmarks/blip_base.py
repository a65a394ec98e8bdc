"""mmedge against `transformers` on a full-size BLIP captioner with random weights, in one interleaved run.

    python benchmarks/blip_base.py

Makes the checkpoint and the bundles under ``benchmarks/.work`` unless they are there, lets `transformers` in float32
and bfloat16 and the bundles caption the same pictures in turns, 30 tokens each, and writes ``results/blip_base.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

import mmedge
from mmedge.profiling.candidates import candidates_of
from mmedge.profiling.profile import profile
from mmedge.profiling.queries import queries_of
from mmedge.profiling.report import Candidate, Profile

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "benchmarks" / ".work"
CHECKPOINT = WORK / "blip_base"
RESULTS = ROOT / "benchmarks" / "results" / "blip_base.json"
RECIPE = ROOT / "benchmarks" / "workloads" / "blip_base.toml"
PEER = (sys.executable, str(ROOT / "benchmarks" / "peers" / "transformers_blip.py"))
LIMIT = 30
METRICS = ("first_token_ms", "ms_per_token", "load_s", "peak_mb")


def peer(dtype: str) -> Candidate:
    size = (CHECKPOINT / "model.safetensors").stat().st_size
    return Candidate(f"transformers {dtype}", str(CHECKPOINT), "", f"transformers-{dtype}", {"all": dtype}, size)


def prepare() -> list[Path]:
    """The checkpoint, and its bundles: float32 and int8 for any CPU, int8 with both engines for x86-64."""
    if not (CHECKPOINT / "model.safetensors").exists():
        maker = ROOT / "benchmarks" / "models" / "blip_base.py"
        subprocess.run([sys.executable, maker, CHECKPOINT], check=True)
    bundles = []
    for target, precision in (("cpu", "float32"), ("cpu", "int8"), ("x86-64", "int8")):
        bundles.append(WORK / f"blip-{precision}-{target}.bundle")
        if not bundles[-1].exists():
            mmedge.export(str(CHECKPOINT), output=bundles[-1], recipe=RECIPE, target=target, precision=precision)
    return bundles


def measures(found: Profile, number: int) -> dict[str, np.ndarray]:
    """Raw values of a candidate: first token and time per token by round, load and peak by process."""
    runs = sorted((run for run in found.rounds if run.candidate == number), key=lambda run: run.round)
    loads = [start.loaded_s for start in found.starts if start.candidate == number and start.phase != "prepare"]
    peaks = [weight.memory.peak / 1e6 for weight in found.weights if weight.candidate == number]
    return {
        "first_token_ms": np.array([run.token_ms[0] for run in runs]),
        "ms_per_token": np.array([(run.token_ms[-1] - run.token_ms[0]) / (len(run.token_ms) - 1) for run in runs]),
        "load_s": np.array(loads),
        "peak_mb": np.array(peaks),
    }


def times_better(found: Profile, number: int, peers: Sequence[int]) -> dict[str, dict[str, float]]:
    """How many times smaller each measure is than the better of the two peers', with the middle half of the ratios."""
    own, others = measures(found, number), [measures(found, peer) for peer in peers]
    better = {}
    for name in METRICS:
        best = min(others, key=lambda other: float(np.median(other[name])))
        count = min(len(best[name]), len(own[name]))
        ratios = best[name][:count] / own[name][:count]
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        better[name] = {"times": round(float(middle), 2), "from": round(float(low), 2), "to": round(float(high), 2)}
    return better


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--sittings", type=int, default=3)
    options = parser.parse_args()
    bundles = prepare()
    ours = (*candidates_of(bundles[:2], ["onnxruntime", "openvino"]), *candidates_of(bundles[2:]))
    candidates = (peer("float32"), peer("bfloat16"), *ours)
    queries = [query for query in queries_of(bundles, None, None) if query.task == "caption"]
    found = profile(
        candidates,
        queries,
        rounds=options.rounds,
        warmup=2,
        sittings=options.sittings,
        limit=LIMIT,
        save=WORK / "blip_base_profile.json",
        say=lambda line: print(line, file=sys.stderr),
        command=PEER,
    )
    rows = {}
    for number, candidate in enumerate(found.candidates):
        medians = {name: round(float(np.median(values)), 2) for name, values in measures(found, number).items()}
        rows[candidate.name] = {"median": medians, "times_better_than_best_peer": times_better(found, number, (0, 1))}
        print(candidate.name, rows[candidate.name])
    about = {"machine": found.machine, "software": found.software, "doubts": found.doubts, "settings": found.settings}
    RESULTS.write_text(json.dumps({**msgspec.to_builtins(about), "candidates": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
