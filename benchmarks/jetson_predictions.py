"""What a Jetson should take, from bytes, operations and data sheets: a prediction, nothing of it was measured.

    python benchmarks/jetson_predictions.py

A step takes the longer of moving its bytes and doing its operations, plus its kernel launches and what the host does
around them. How much of the data sheet's bandwidth and arithmetic is reached, and how long the rest takes, are
assumptions with a range; the same arithmetic for models whose speed others published shows how far off it is. Writes
``results/jetson_predictions.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from mmedge.core import find
from mmedge.core.target import Target

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = ROOT / "benchmarks" / ".work" / "blip_base"
RESULTS = ROOT / "benchmarks" / "results" / "jetson_predictions.json"
MODULES = ("jetson-orin-nano-4gb", "jetson-orin-nano", "jetson-orin-nx", "jetson-agx-orin", "jetson-thor")
MODELS = (
    ("BLIP-base", str(CHECKPOINT), ROOT / "benchmarks" / "workloads" / "blip_base.toml"),
    ("builtin:scenes", "builtin:scenes", None),
)
PRECISIONS = ("float16", "int8")
PROMPT = 4
"""Tokens of `a picture of`, with the one that begins every caption."""
KERNELS_PER_LAYER = 14
"""Launches of a transformer layer after TensorRT has fused what it can: counted by hand in a decoder layer with
cross-attention (projections, cache, attention, norms, feed-forward); an encoder layer has fewer."""
HALF = 2
"""Bytes of a float16 number."""


@dataclass(frozen=True)
class Assumption:
    """What a device reaches of its data sheet."""

    bandwidth: float
    arithmetic: float
    launch_us: float
    host_us: float
    """Around each run: starting it, waiting for it, Python."""


ASSUMPTIONS = {
    "fast": Assumption(0.8, 0.5, 1.5, 30.0),
    "usual": Assumption(0.65, 0.35, 3.0, 100.0),
    "slow": Assumption(0.5, 0.2, 6.0, 300.0),
}


@dataclass(frozen=True)
class Device:
    """A module by its data sheet: GB/s and 10^12 operations a second."""

    bandwidth_gbs: float
    tflops: float


@dataclass(frozen=True)
class Step:
    """One run of a graph: megabytes (10^6) moved by what they are, 10^9 operations, kernel launches."""

    megabytes: dict[str, float]
    gflop: float
    kernels: int


@dataclass(frozen=True)
class Took:
    """Milliseconds by cause."""

    moving: float
    computing: float
    launching: float

    @property
    def whole(self) -> float:
        return max(self.moving, self.computing) + self.launching


def predict(step: Step, device: Device, assumed: Assumption) -> Took:
    """GB/s are MB/ms, and 10^12 operations a second are 10^9 a millisecond."""
    return Took(
        moving=sum(step.megabytes.values()) / (device.bandwidth_gbs * assumed.bandwidth),
        computing=step.gflop / (device.tflops * assumed.arithmetic),
        launching=(step.kernels * assumed.launch_us + assumed.host_us) / 1e3,
    )


def spelled(step: Step, device: Device, assumed: Assumption) -> dict[str, str]:
    """The same, term by term."""
    took = predict(step, device, assumed)
    bytes_ = " + ".join(f"{value:.1f} {name}" for name, value in step.megabytes.items())
    return {
        "moving": f"({bytes_}) MB / ({device.bandwidth_gbs:g} GB/s x {assumed.bandwidth}) = {took.moving:.2f} ms",
        "computing": f"{step.gflop:.3g} GFLOP / ({device.tflops:g} TFLOPS x {assumed.arithmetic})"
        f" = {took.computing:.2f} ms",
        "launching": f"{step.kernels} x {assumed.launch_us} us + {assumed.host_us} us = {took.launching:.2f} ms",
        "whole": f"max(moving, computing) + launching = {took.whole:.2f} ms",
    }


# Ours


def steps_of(model: str, recipe: Path | None, target: str, precision: str) -> dict[str, tuple[Step, str]]:
    """Encoding a picture, reading the prompt and writing one token, each with the precision it computes in."""
    from mmedge.export.prepare import prepare

    prepared = prepare(model, recipe, target=target, precision=precision)
    plan, estimate = prepared.plan, prepared.costs
    costs = {cost.component: cost for cost in estimate.costs}
    vision, text = (plan.config["model"][f"{part}_config"]["num_hidden_layers"] for part in ("vision", "text"))
    decoder = next(component for component in plan.components if component.cache)
    encoder = next(component for component in plan.components if not component.cache)
    held = [port for port in decoder.inputs if port.name.startswith("cross.")]
    cache = decoder.cache
    one_pass = cache.layers * 2 * cache.heads * cache.capacity * cache.head_dim * HALF / 1e6
    moved = {
        "weights": costs[decoder.name].weights_mb * (1 << 20) / 1e6,
        "cache, read, written and read again": 3 * one_pass,
        "keys and values of the picture": sum(_numbers(port.shape) for port in held) * HALF / 1e6,
    }
    encoding = Step(
        {
            "weights": costs[encoder.name].weights_mb * (1 << 20) / 1e6,
            "keys and values of the picture": moved["keys and values of the picture"],
        },
        costs[encoder.name].gflop,
        KERNELS_PER_LAYER * vision,
    )
    writing = Step(moved, costs[decoder.name].gflop, KERNELS_PER_LAYER * text)
    prompt = Step(moved, costs[decoder.name].gflop * PROMPT, writing.kernels)
    half = costs[decoder.name].precision
    return {"encode": (encoding, costs[encoder.name].precision), "prefill": (prompt, half), "token": (writing, half)}


def device_of(target: Target, precision: str) -> Device:
    """Weight-only precisions compute in float16."""
    return Device(target.bandwidth_gbs, target.tflops.get(precision, target.tflops["float16"]))


def predictions() -> Iterator[dict]:
    """Every model in every precision on every module."""
    for name, model, recipe in MODELS:
        for precision in PRECISIONS:
            for module in MODULES:
                target = find.target(module)
                steps = steps_of(model, recipe, module, precision)
                yield {"model": name, "precision": precision, "module": module, **_predicted(steps, target)}


def _predicted(steps: dict[str, tuple[Step, str]], target: Target) -> dict:
    found: dict = {"ranges": {}, "arithmetic": {}}
    for label, assumed in ASSUMPTIONS.items():
        took = {name: predict(step, device_of(target, kind), assumed) for name, (step, kind) in steps.items()}
        found["ranges"][label] = {
            "encode_ms": round(took["encode"].whole, 2),
            "first_token_ms": round(took["encode"].whole + took["prefill"].whole, 2),
            "tokens_per_second": round(1e3 / took["token"].whole, 1),
        }
    for name, (step, kind) in steps.items():
        found["arithmetic"][name] = spelled(step, device_of(target, kind), ASSUMPTIONS["usual"])
    return found


def _numbers(shape: tuple[int | str, ...]) -> int:
    count = 1
    for size in shape:
        assert isinstance(size, int), f"a size that varies: {shape}"
        count *= size
    return count


# What others published


@dataclass(frozen=True)
class Language:
    """A Qwen3 text model: sizes from its config.json."""

    layers: int
    hidden: int
    between: int
    heads: int
    key_heads: int
    vocabulary: int
    head_dim: int = 128

    @property
    def block_weights(self) -> int:
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.key_heads)
        return self.layers * (attention + 3 * self.hidden * self.between)

    @property
    def head_weights(self) -> int:
        return self.hidden * self.vocabulary


QWEN3_600M = Language(28, 1024, 3072, 16, 8, 151_936)
QWEN3_2B = Language(28, 2048, 6144, 16, 8, 151_936)
INT4 = 0.5 + 2 / 128
"""Bytes of a weight: groups of 128 share a float16 scale. The output layer stays float16."""
CONTEXT = 512


def writing(model: Language) -> Step:
    """One token, int4 weights, after `CONTEXT` tokens."""
    cache = model.layers * 2 * model.key_heads * model.head_dim * CONTEXT * HALF
    moved = {
        "int4 weights": model.block_weights * INT4 / 1e6,
        "output layer": model.head_weights * HALF / 1e6,
        "cache": cache / 1e6,
    }
    return Step(moved, 2 * (model.block_weights + model.head_weights) / 1e9, KERNELS_PER_LAYER * model.layers)


def reading(model: Language, tokens: int) -> Step:
    """A prompt: every token goes through the blocks, the last one through the output layer."""
    operations = 2 * (model.block_weights * tokens + model.head_weights)
    return Step(writing(model).megabytes, operations / 1e9, KERNELS_PER_LAYER * model.layers)


def looking(patches: int, layers: int = 12, hidden: int = 768) -> Step:
    """A vision transformer in float16, one picture."""
    weights = 12 * hidden * hidden * layers
    operations = 2 * weights * patches + 4 * patches * patches * hidden * layers
    return Step({"weights": weights * HALF / 1e6}, operations / 1e9, KERNELS_PER_LAYER * layers)


EDGE_LLM = "TensorRT-Edge-LLM performance benchmarks, 0.8.0 (decoding was slower in that version), INT4 AWQ"
SUPER = "NVIDIA, Jetson Orin Nano Super announcement; batch and precision are not told, 1 and float16 assumed"
COSMOS = "hokwangchoi/jetson-orin-nano-benchmarks, W4A16 with TensorRT-Edge-LLM"
PUBLISHED = (
    ("Qwen3-VL-2B", "tokens/s", "jetson-orin-nano", 36.3, writing(QWEN3_2B), EDGE_LLM),
    ("Qwen3-VL-2B", "tokens/s", "jetson-orin-nx", 58.9, writing(QWEN3_2B), EDGE_LLM),
    ("Qwen3-VL-2B", "tokens/s", "jetson-agx-orin", 95.7, writing(QWEN3_2B), EDGE_LLM),
    ("Qwen3-VL-2B", "tokens/s", "jetson-thor", 119.0, writing(QWEN3_2B), EDGE_LLM),
    ("Qwen3-0.6B", "tokens/s", "jetson-orin-nano", 69.4, writing(QWEN3_600M), EDGE_LLM),
    ("Cosmos-Reason2-2B", "tokens/s", "jetson-orin-nano", 59.9, writing(QWEN3_2B), COSMOS),
    ("Cosmos-Reason2-2B", "prompts/s", "jetson-orin-nano", 1e3 / 211, reading(QWEN3_2B, 512), COSMOS),
    ("CLIP ViT-B/16", "pictures/s", "jetson-orin-nano", 161.0, looking(197), SUPER),
    ("CLIP ViT-B/32", "pictures/s", "jetson-orin-nano", 314.0, looking(50), SUPER),
)
"""What, in what, on what, how much, the arithmetic, the source. Qwen3-VL-2B and Cosmos-Reason2-2B write with the same
text model; a prompt of the latter was 512 tokens."""


def compared() -> Iterator[dict]:
    """Published rates beside predicted ones."""
    for what, unit, module, rate, step, source in PUBLISHED:
        device = device_of(find.target(module), "float16")
        rates = {label: 1e3 / predict(step, device, assumed).whole for label, assumed in ASSUMPTIONS.items()}
        yield {
            "what": what,
            "unit": unit,
            "module": module,
            "published": round(rate, 1),
            "predicted": {label: round(value, 1) for label, value in rates.items()},
            "published_over_usual": round(rate / rates["usual"], 2),
            "within_range": rates["slow"] <= rate <= rates["fast"],
            "arithmetic": spelled(step, device, ASSUMPTIONS["usual"]),
            "source": source,
        }


# The table


def table(result: dict) -> Iterator[str]:
    """At most 80 columns."""
    yield "Predicted, not measured: usual (slow .. fast assumptions)"
    yield ""
    yield f"{'module':<15}{'model':<16}{'precision':<10}{'first token, ms':>18}{'tokens/s':>20}"
    for row in result["predictions"]:
        first, rate = (_range(row["ranges"], name) for name in ("first_token_ms", "tokens_per_second"))
        yield f"{_module(row):<15}{row['model']:<16}{row['precision']:<10}{first:>18}{rate:>20}"
    yield ""
    yield "The same arithmetic for what others published:"
    yield f"{'module':<15}{'model':<19}{'':<12}{'published':>12}{'predicted':>21}"
    for row in result["compared"]:
        predicted = _range({label: {"rate": value} for label, value in row["predicted"].items()}, "rate")
        mark = "" if row["within_range"] else "!"
        yield f"{_module(row):<15}{row['what']:<19}{row['unit']:<12}{row['published']:>11}{mark or ' '}{predicted:>21}"
    yield "!: outside the predicted range"


def _module(row: dict) -> str:
    return row["module"].removeprefix("jetson-")


def _range(ranges: dict[str, dict[str, float]], name: str) -> str:
    low, high = sorted((ranges["slow"][name], ranges["fast"][name]))
    return f"{_short(ranges['usual'][name])} ({_short(low)}..{_short(high)})"


def _short(value: float) -> str:
    return f"{value:.{1 if value < 10 else 0}f}"


def main() -> None:
    """Predict, print and write."""
    if not CHECKPOINT.exists():
        maker = ROOT / "benchmarks" / "models" / "blip_base.py"
        subprocess.run([sys.executable, maker, CHECKPOINT], check=True)
    result = {
        "what": "predictions from bytes, operations and data sheets: nothing here was measured on a Jetson",
        "not_counted": "reading and scaling the picture, copying to the device, picking words on the host",
        "assumptions": {label: asdict(assumed) for label, assumed in ASSUMPTIONS.items()},
        "kernels_per_layer": KERNELS_PER_LAYER,
        "modules": {
            name: {"bandwidth_gbs": target.bandwidth_gbs, "tflops": target.tflops}
            for name in MODULES
            for target in (find.target(name),)
        },
        "predictions": list(predictions()),
        "compared": list(compared()),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(table(result)))


if __name__ == "__main__":
    main()
