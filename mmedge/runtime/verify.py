"""Is this bundle whole, and does it answer on this device as it did where it was made?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from msgspec import Struct

from mmedge.core.bundle import Bundle, Golden
from mmedge.core.family import Prompt, Request
from mmedge.core.ports import Tensors
from mmedge.media.image import decode_picture
from mmedge.runtime.golden import Record, from_bytes, record
from mmedge.runtime.pipeline import Pipeline, open_pipeline

PIXEL_BOUND = 2 / 255
"""A later Pillow may round a resized pixel otherwise; more than this is another picture."""

EXACT_COSINE = 0.9999
"""Two engines in float32; quantized graphs are held to what the recipe accepted against torch."""


class Check(Struct, frozen=True):
    """One thing that was compared."""

    sample: str
    what: str
    """``preprocess``, a component's name, or ``tokens``."""
    value: float
    bound: float
    passed: bool
    note: str = ""


class Verification(Struct, frozen=True):
    """What `verify` found; the digests were right, or it would have raised."""

    bundle: str
    files: int
    backends: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def verify(
    bundle: Bundle, *, backend: str | None = None, threads: int = 0, progress: Callable[[str], None] | None = None
) -> Verification:
    """Check every digest, then replay the golden samples.

    Raises:
        BundleError: a file is not what the manifest says.
        BackendError: the engine is missing or refuses a graph.
    """
    report = progress or (lambda line: None)
    bundle.verify(done=lambda name: report(f"digest {name}"))
    checks: list[Check] = []
    with open_pipeline(bundle, backend=backend, threads=threads) as pipeline:
        for golden in bundle.manifest.golden:
            report(f"replay {golden.path}")
            checks += _replay(bundle, pipeline, golden)
        used = {graph.component: pipeline.backends[graph.component] for graph in bundle.manifest.graphs}
    return Verification(str(bundle.path), len(bundle.manifest.files), used, tuple(checks))


def _replay(bundle: Bundle, pipeline: Pipeline, golden: Golden) -> Iterator[Check]:
    def stored(name: str) -> Tensors:
        return from_bytes(bundle.read(f"{golden.path}/{name}"), f"{golden.path}/{name}")

    inputs, outputs = stored("inputs.npz"), stored("outputs.npz")
    picture = decode_picture(bundle.read(f"{golden.path}/picture.png"), f"{golden.path}/picture.png")
    prompt = pipeline.prepare(Request((picture.pixels,), golden.question))
    yield _check_inputs(pipeline, golden, prompt, inputs)
    # The recorded inputs are replayed, so that a graph is not blamed for the pre-processing.
    recorded = {name: inputs[name] for name in prompt.feeds}
    seen = record(pipeline.engine, Prompt(recorded, inputs["tokens"], prompt.stop, prompt.capacity))
    for graph in bundle.manifest.graphs:
        lossless = graph.precision == "float32"
        bound = EXACT_COSINE if lossless else min(EXACT_COSINE, bundle.manifest.accept.cosine)
        yield _check_outputs(golden, graph.component, outputs, seen, bound)
    yield _check_tokens(golden, seen, lossless=all(graph.precision == "float32" for graph in bundle.manifest.graphs))


def _check_inputs(pipeline: Pipeline, golden: Golden, prompt: Prompt, inputs: Tensors) -> Check:
    scale = max(pipeline.config["image"].get("image_std") or [1.0])
    worst = max(float(np.abs(tensor - inputs[name]).max()) * scale for name, tensor in prompt.feeds.items())
    same_text = np.array_equal(prompt.tokens, inputs["tokens"])
    note = "" if same_text else "the text became other tokens"
    return Check(golden.path, "preprocess", worst, PIXEL_BOUND, worst <= PIXEL_BOUND and same_text, note)


def _check_outputs(golden: Golden, component: str, outputs: Tensors, seen: Record, bound: float) -> Check:
    pairs = [(want, seen.outputs[name]) for name, want in outputs.items() if name.startswith(f"{component}/")]
    worst = min((_cosine(want, got) for want, got in pairs), default=-1.0)
    return Check(golden.path, component, worst, bound, worst >= bound)


def _check_tokens(golden: Golden, seen: Record, lossless: bool) -> Check:
    """Tokens must be equal in float32; a quantized graph may round the other way on another engine, so there the
    numbers decide and the share of equal tokens is told."""
    pairs = zip(golden.tokens, seen.tokens, strict=False)
    equal = sum(a == b for a, b in pairs) / max(len(golden.tokens), len(seen.tokens), 1)
    equal = 1.0 if golden.tokens == seen.tokens else equal
    bound = 1.0 if lossless else 0.0
    return Check(golden.path, "tokens", equal, bound, equal >= bound)


def _cosine(want: np.ndarray, got: np.ndarray) -> float:
    if want.shape != got.shape or not np.isfinite(got).all():
        return -1.0
    a, b = want.astype(np.float64), got.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else float(np.array_equal(a, b))
