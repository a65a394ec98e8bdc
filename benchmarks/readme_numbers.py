"""The tables of the README's measurements, made from the files in ``results``.

    python benchmarks/readme_numbers.py             # writes what lies between the markers
    python benchmarks/readme_numbers.py --check     # fails where the README says something else

A marker is a line ``<!-- measured: NAME -->``, and the table ends at ``<!-- end -->``; names are those of `TABLES`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmedge.profiling.keep import read_run
from mmedge.profiling.run import Ratio, Run

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
BLIND = "no picture"
"""In the names of programs that are asked without the picture, as they cannot see it."""

TIMES = {"first token": "ttft_ms", "each further token": "tpot_ms", "whole answer": "answer_ms"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, the first column's head empty."""
    lines = [["", *head], ["---"] * (len(head) + 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


def profiled(run: Run) -> str:
    """Candidates beside the first: ratios with their intervals, then what is no ratio."""
    rows = (_row(run, c) for c in range(len(run.candidates)))
    return table([*TIMES, "start to first answer", "peak memory"], rows)


def _row(run: Run, c: int) -> Iterator[str]:
    yield run.candidates[c].name
    for metric in TIMES.values():
        yield _time(run, metric) if c == 0 else _ratio(run.ratio(c, metric))
    start, peak = run.absolute(c, "warm_ms"), run.absolute(c, "peak_pss", "value")
    yield f"{start.value / 1e3:.1f} s" if start and start.value is not None else "-"
    yield f"{peak.value / 1e6:.0f} MB" if peak and peak.value is not None else "-"


def _time(run: Run, metric: str) -> str:
    found = run.absolute(0, metric)
    if found is None or found.value is None:
        return "-"
    return f"{found.value:.0f} ms" if found.value >= 100 else f"{found.value:.3g} ms"


def _ratio(ratio: Ratio | None) -> str:
    return f"x{ratio.ratio:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else "-"


def blip_base(results: Path) -> str:
    return profiled(read_run(results / "blip_base.json"))


def scenes(results: Path) -> str:
    """What is right of held-out scenes, and how long the encoder takes."""
    found = json.loads((results / "scenes_int8.json").read_text())
    rows = [
        [f"{name} exactly right", f"{right['float32']:.1%}", f"{right['int8']:.1%}"]
        for name, right in found["accuracy"].items()
    ]
    int8 = found["candidates"].index("scenes-int8 onnxruntime")
    encode = next(each for each in found["ratios"] if (each["c"], each["metric"]) == (int8, "encode_ms"))
    shown = f"x{encode['ratio']:.2f} [{encode['low']:.2f}, {encode['high']:.2f}]"
    return table(["float32", "int8"], [*rows, ["time of the encoder on ONNX Runtime", "baseline", shown]])


def jetson_export(results: Path) -> str:
    """Time and memory of exporting for a Jetson."""
    exports = json.loads((results / "export_jetson.json").read_text())["exports"]
    rows = [
        ["time", *(f"{each['seconds']:.0f} s" for each in exports.values())],
        ["peak memory", *(f"{each['peak_mb'] * 2**20 / 1e9:.1f} GB" for each in exports.values())],
    ]
    return table(list(exports), rows)


def jetson_predictions(results: Path) -> str:
    """What data sheets promise of BLIP on an Orin Nano, and how published figures of others fit the same arithmetic."""
    found = json.loads((results / "jetson_predictions.json").read_text())
    own = [
        each for each in found["predictions"] if (each["model"], each["module"]) == ("BLIP-base", "jetson-orin-nano")
    ]
    rows = [
        [each["precision"], _range(each, "first_token_ms", "ms"), _range(each, "tokens_per_second", "")] for each in own
    ]
    inside = sum(each["within_range"] for each in found["compared"])
    farthest = max(abs(each["published_over_usual"] - 1) for each in found["compared"] if not each["within_range"])
    others = f"{inside} of {len(found['compared'])} inside the range, the others up to {farthest:.0%} off"
    return table(["first token", "tokens/s"], [*rows, ["published figures of others, same arithmetic", others, ""]])


def _range(prediction: dict[str, Any], measure: str, unit: str) -> str:
    usual, *ends = (prediction["ranges"][name][measure] for name in ("usual", "fast", "slow"))
    return f"{usual:.0f} [{min(ends):.0f}, {max(ends):.0f}] {unit}".rstrip()


def profiler_checks(results: Path) -> str:
    """Which checks of the profiler on itself passed."""
    found = json.loads((results / "profiler_checks.json").read_text())
    words = {True: "passed", False: "NOT passed"}
    names = {
        word: [name.replace("_", " ", 1) for name, each in found.items() if words[each["passed"]] == word]
        for word in words.values()
    }
    return table(["checks"], [[word, ", ".join(each)] for word, each in names.items() if each])


def install(results: Path) -> str:
    """What a device installs, and how long the package takes to import."""
    size = json.loads((results / "install_size.json").read_text())
    times = json.loads((results / "import_time.json").read_text())["results"]
    rows = [
        ["installed with ONNX Runtime", f"{size['total_mb']:.0f} MB"],
        ["on a Jetson, which has its engine", f"{size['jetson']['total_mb']:.0f} MB"],
        *(
            [f"`{name}`, by what `import numpy` takes", f"x{times[name]['wall_extra_over_numpy']['median']:.2f}"]
            for name in ("import mmedge", "mmedge --help")
        ),
    ]
    return table(["measured"], rows)


def vlm_peers(results: Path) -> str:
    """Each bundle of a vision-language model by each other program, in the same interleaved run."""
    measures = {
        "first token": "ttft_ms",
        "tokens/s": "tokens_per_s",
        "start to first token": "start_to_first_token_ms",
        "peak memory": "peak_pss",
    }
    found = json.loads((results / "vlm_peers.json").read_text())
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in (row for each in found.values() for row in each["pairs"]):
        if row["measure"] == "tokens_per_s" or BLIND not in row["peer"]:
            spread = f" [{row['low']:.2f}, {row['high']:.2f}]" if "low" in row else ""
            cells = rows.setdefault((row["candidate"].split()[0], row["peer"]), {})
            cells[row["measure"]] = f"x{row['ratio']:.2f}{spread}"
    shown = (
        [f"`{own}` by {peer}", *(cells.get(key, "-") for key in measures.values())]
        for (own, peer), cells in rows.items()
    )
    return table(list(measures), shown)


def vlm_roofline(results: Path) -> str:
    """Which share of a stage's time the machine would need at its best."""
    stages = {"encode": "encode", "prefill": "prefill", "decode_loop": "decode"}
    found = json.loads((results / "vlm_peers.json").read_text())
    rows = [
        [f"`{name.split()[0]}`", *(_share(shares.get(stage)) for stage in stages)]
        for each in found.values()
        for name, shares in each.get("roofline", {}).items()
    ]
    return table(list(stages.values()), rows)


def _share(found: dict[str, Any] | None) -> str:
    return f"{found['share']:.0%}, {found['bound']}" if found else "-"


def together(results: Path) -> str:
    """Several answers at once by one after the other."""
    found = json.loads((results / "together.json").read_text())
    what = {"tokens_behind_the_first": "tokens/s behind the first", "answers": "whole answers/s"}
    rows = [
        [f"`{name}`, {words}", *(f"x{each[key][n]['ratio']:.2f}" for n in each[key])]
        for name, each in found.items()
        if name != "versions"
        for key, words in what.items()
    ]
    return table(["2 at once", "4", "8"], rows)


def scenes_vlm(results: Path) -> str:
    """What is right of held-out scenes, and how far each variant's choices are from those of float32."""
    found = json.loads((results / "scenes_vlm_variants.json").read_text())["variants"]
    rows = [
        [
            each["name"],
            f"{each['captions']:.1%}",
            f"{each['answers']:.1%}",
            f"{each['top1']:.1%}",
            f"{each['divergence']:.1g}",
        ]
        for each in found
    ]
    return table(["captions right", "answers right", "same likeliest token", "divergence"], rows)


def memory(results: Path) -> str:
    """Peak memory as `mmedge check` predicts it and as it is measured."""
    found = json.loads((results / "memory.json").read_text())["compared"]
    rows = [
        [
            name,
            f"{each['predicted_mib']} MiB",
            f"{each['measured_mib']} MiB",
            f"{each['predicted_mib'] / each['measured_mib'] - 1:+.0%}",
        ]
        for name, each in found.items()
    ]
    return table(["predicted", "measured", "difference"], rows)


TABLES: dict[str, Callable[[Path], str]] = {
    "blip_base": blip_base,
    "scenes": scenes,
    "jetson_export": jetson_export,
    "jetson_predictions": jetson_predictions,
    "install": install,
    "profiler_checks": profiler_checks,
    "vlm_peers": vlm_peers,
    "vlm_roofline": vlm_roofline,
    "together": together,
    "scenes_vlm": scenes_vlm,
    "memory": memory,
}


def filled(text: str, results: Path = RESULTS) -> str:
    """The text with every table between markers made anew."""

    def made(block: re.Match[str]) -> str:
        begin, name, end = block.groups()
        if name not in TABLES:
            raise SystemExit(f"there is no table `{name}`, only: {', '.join(TABLES)}")
        return f"{begin}{TABLES[name](results)}{end}"

    if text.count("<!-- measured:") != len(BLOCK.findall(text)):
        raise SystemExit("a marker `<!-- measured: NAME -->` has no `<!-- end -->`")
    return BLOCK.sub(made, text)


def main() -> None:
    text = README.read_text()
    wanted = filled(text)
    if "--check" in sys.argv and text != wanted:
        raise SystemExit("README.md and benchmarks/results differ: run `python benchmarks/readme_numbers.py`")
    if "--check" not in sys.argv:
        README.write_text(wanted)


if __name__ == "__main__":
    main()
