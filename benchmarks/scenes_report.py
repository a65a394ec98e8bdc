"""The example of a full report: the built-in captioner on two engines in several precisions.

    python benchmarks/scenes_report.py

Exports `builtin:scenes` anew in each precision and profiles everything that `mmedge profile` can: speed, start,
memory, load, heat, layers, the machine's roof and the answers to held-out scenes. Writes
``results/scenes_profile.json``, with as many rounds as fit the size given with ``--largest``, and
``results/scenes_report.html``, which is made of all of them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import scenes
from published import LARGEST, WORK, publish

from mmedge.profiling.candidates import candidates_of
from mmedge.profiling.extras import extras_of
from mmedge.profiling.inputs import inputs_of
from mmedge.profiling.profile import Settings, profile

ENGINES = ("onnxruntime", "openvino")
PRECISIONS = ("float32", "int8", "int8-weights", "int4-weights")
SLO = "server:slo=answer<100ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, metavar="PRECISION", help="float16 works too")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds for the rounds")
    parser.add_argument("--load-budget", type=float, default=300.0, help="seconds for all rates of all candidates")
    parser.add_argument("--soak", type=float, default=20.0, help="minutes")
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--largest", type=int, default=LARGEST, help="bytes of the JSON file")
    parser.add_argument("--keep-bundles", action="store_true", help="use those that are there")
    parser.add_argument("--try", action="store_true", dest="trying", help="write nothing into results")
    options = parser.parse_args()
    bundles = scenes.bundles(tuple(options.precisions), fresh=not options.keep_bundles)
    extras = extras_of(
        is_cold=True,
        memory="auto",
        scenario=SLO,
        budget_s=options.load_budget,
        soak_s=options.soak * 60 or None,
        by_layer=True,
        roof=True,
        counted=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        found = profile(
            candidates_of(bundles, ENGINES),
            inputs_of(bundles, str(scenes.captions(options.pictures)), "caption", Path(folder)),
            Settings(budget_s=options.budget, processes=options.processes, answer_all=True),
            extras,
            save=WORK / "scenes_run.json",
            say=lambda line: print(line, file=sys.stderr),
        )
    if not options.trying:
        publish(found, "scenes_profile.json", "scenes_report.html", options.largest)


if __name__ == "__main__":
    main()
