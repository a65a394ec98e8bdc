"""mmedge beside other programs on a full-size vision-language model with random weights, in one interleaved run.

    python benchmarks/vlm_peers.py smolvlm_256m [BUNDLE...] [--peers transformers_vlm,llama_cpp_vlm]

Makes the checkpoint, the environments of the peers and what each of them opens under ``benchmarks/.work`` unless they
are there. All candidates answer one question about one picture in turns, greedily, in as many tokens. Writes
``results/vlm_MODEL.json`` and a report beside it, and every bundle's ratios to every peer, and its stages' shares of
what the machine can do, into ``results/vlm_peers.json`` (`pairs`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pairs import summary
from peers import environment
from published import RESULTS, ROOT, WORK, publish

from mmedge.profiling.candidates import candidates_of
from mmedge.profiling.extras import roofline_of_all
from mmedge.profiling.inputs import inputs_of
from mmedge.profiling.profile import Settings, profile
from mmedge.profiling.run import Candidate, Inputs, Run

THREADS = 2
LIMIT = 64
SIDES = {"smolvlm_256m": 512, "llava_onevision_05b": 384, "qwen2_vl_2b": 448}
"""Pixels of the picture: one tile, or one beside one of the whole, where a model has tiles."""
QUESTION = (
    "Look at the picture and describe what can be seen in it, from the left to the right: which things there are, "
    "which colour each of them has, and where they are."
)
"""With the rows of SmolVLM's tile 117 tokens."""


class Peer(NamedTuple):
    """A program, and what it makes of a checkpoint before it is measured."""

    name: str
    script: str
    precision: str
    made: str = ""
    """What the script is told to make; empty where it opens the checkpoint itself."""
    models: tuple[str, ...] = ()
    """Those that it can open; all where there is none."""


PEERS = (
    Peer("llama.cpp Q8_0", "llama_cpp_vlm", "int8", "Q8_0", ("smolvlm_256m",)),
    Peer("llama.cpp Q4_0", "llama_cpp_vlm", "int4", "Q4_0", ("smolvlm_256m",)),
    Peer("transformers float32", "transformers_vlm", "float32"),
    Peer("transformers bfloat16", "transformers_vlm", "bfloat16"),
    Peer("optimum-intel int8", "optimum_intel_vlm", "int8", "8", ("smolvlm_256m", "qwen2_vl_2b")),
    Peer("onnxruntime-genai int4, no picture", "onnxruntime_genai_vlm", "int4", "int4", ("smolvlm_256m",)),
    Peer("openvino-genai int8", "openvino_genai_vlm", "int8", "8", ("qwen2_vl_2b",)),
)


def checkpoint_of(model: str) -> Path:
    """Made unless it is there."""
    folder = WORK / model
    if not (folder / "processor_config.json").exists():
        maker = ROOT / "benchmarks" / "models" / "vision_language.py"
        subprocess.run([sys.executable, maker, model, folder], check=True)
    return folder


def candidate_of(peer: Peer, checkpoint: Path) -> Candidate:
    """With what it opens, made unless it is there."""
    command = environment.command(peer.script)
    folder = checkpoint.with_name(f"{checkpoint.name}_{peer.script}_{peer.made}") if peer.made else checkpoint
    if not (done := folder / "made").exists() and peer.made:
        subprocess.run(["nice", *command, "make", checkpoint, folder, peer.made], check=True)
        done.touch()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    asked = () if peer.made else (peer.precision,)
    precisions = {"all": peer.precision}
    return Candidate(peer.name, str(folder), "", None, precisions, size, threads=THREADS, command=(*command, *asked))


def candidates(model: str, bundles: Sequence[Path], wanted: Sequence[str]) -> Iterator[Candidate]:
    checkpoint = checkpoint_of(model)
    for peer in PEERS:
        if model in (peer.models or (model,)) and peer.script in (wanted or (peer.script,)):
            yield candidate_of(peer, checkpoint)
    if bundles:
        yield from candidates_of(bundles, threads=(THREADS,))


def inputs(model: str, bundles: Sequence[Path]) -> Inputs:
    """One picture and one question."""
    folder, side = WORK / "vlm_inputs" / model, SIDES[model]
    folder.mkdir(parents=True, exist_ok=True)
    picture = inputs_of((), f"synthetic:{side}x{side}", None, folder).items[0].file
    rows = folder / "questions.jsonl"
    rows.write_text(json.dumps({"image": picture, "question": QUESTION}) + "\n")
    return inputs_of(bundles, str(rows), "ask", folder)


def note(model: str, run: Run, file: Path) -> None:
    """The model's entry in a file with those of others."""
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {model: summary(run)}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=SIDES)
    parser.add_argument("bundles", type=Path, nargs="*", help="bundles of the same checkpoint")
    parser.add_argument("--peers", default="", help="scripts in benchmarks/peers, as in transformers_vlm,llama_cpp_vlm")
    parser.add_argument("--budget", type=float, default=900.0, help="seconds for the rounds")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--rounds", type=int, help="so many rounds, instead of a budget")
    parser.add_argument("--limit", type=int, default=LIMIT, help="tokens of an answer")
    parser.add_argument("--try", action="store_true", dest="trying", help="write nothing into results")
    options = parser.parse_args()
    settings = Settings(
        budget_s=options.budget,
        processes=options.processes,
        rounds=options.rounds,
        limit=options.limit,
        warmup_s=1.0,
        warmup_answers=3,
    )
    found = profile(
        list(candidates(options.model, options.bundles, [name for name in options.peers.split(",") if name])),
        inputs(options.model, options.bundles),
        settings,
        (roofline_of_all,),
        save=WORK / f"vlm_{options.model}_run.json",
        say=lambda line: print(line, file=sys.stderr),
    )
    if not options.trying:
        publish(found, f"vlm_{options.model}.json", f"vlm_{options.model}_report.html")
        note(options.model, found, RESULTS / "vlm_peers.json")
    note(options.model, found, WORK / "vlm_peers.json")


if __name__ == "__main__":
    main()
