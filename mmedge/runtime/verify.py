"""Is this bundle whole, and does it answer on this device as it did where it was made?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from mmedge.core.bundle import Bundle, Golden, Manifest
from mmedge.core.family import Prompt
from mmedge.core.ports import Tensors
from mmedge.errors import BundleError
from mmedge.runtime.golden import LIMIT, Record, asked, from_bytes, prompt_arrays, record, stored, with_arrays
from mmedge.runtime.model import Model, open_model

PIXEL_BOUND = 2 / 255
"""A later Pillow may round a resized pixel otherwise; more than this is another picture. Of sounds it is in decibels,
where numpy rounds otherwise."""

EXACT_COSINE = 0.9999
"""Two engines in float32; quantized graphs are held to what the recipe accepted against torch."""


class Check(Struct, frozen=True):
    """One thing that was compared."""

    sample: str
    """A golden sample's folder, or ``all``."""
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
        BundleError: a file is not what the manifest says, or there are no golden samples, or none that can be replayed.
        BackendError: the engine is missing or refuses a graph.
    """
    report = progress or (lambda line: None)
    bundle.verify(done=lambda name: report(f"digest {name}"))
    if not bundle.manifest.golden:
        raise BundleError(f"bundle `{bundle.path}` has no golden samples to replay", hint="export the bundle again")
    checks: list[Check] = []
    answered: list[Record] = []
    with open_model(bundle, Model, backend=backend, threads=threads) as pipeline:
        for golden in bundle.manifest.golden:
            report(f"replay {golden.path}")
            compared, seen = _replay(bundle, pipeline, golden)
            checks += compared
            answered.append(seen)
        used = {graph.component: pipeline.backends[graph.component] for graph in bundle.manifest.graphs}
    if any(golden.tokens for golden in bundle.manifest.golden):
        checks.append(_check_tokens(bundle, answered))
    return Verification(str(bundle.path), len(bundle.manifest.files), used, tuple(checks))


def _replay(bundle: Bundle, pipeline: Model, golden: Golden) -> tuple[list[Check], Record]:
    def kept(name: str) -> Tensors:
        return from_bytes(bundle.read(f"{golden.path}/{name}"), f"{golden.path}/{name}")

    inputs, outputs = kept("inputs.npz"), kept("outputs.npz")
    prompt = pipeline.prepare(asked(bundle, golden))
    _refuse_unlike(golden, prompt, inputs)
    checks = [_check_inputs(pipeline, golden, prompt, inputs)]
    # The recorded inputs and answer are replayed, so that a graph is blamed neither for the pre-processing nor for
    # what follows another choice between two equally likely tokens.
    own = prompt_arrays(prompt)
    recorded = {name: inputs[name] if inputs[name].ndim == array.ndim else array for name, array in own.items()}
    seen = record(pipeline.engine, with_arrays(prompt, recorded), golden.tokens)
    for name in sorted(seen.outputs.keys() - outputs.keys()):
        raise BundleError(f"`{golden.path}/outputs.npz` has no `{name}`", hint="export the bundle again")
    for graph, bound in zip(bundle.manifest.graphs, bounds(bundle.manifest), strict=True):
        checks.append(_check_outputs(golden, graph.component, outputs, seen, bound))
    return checks, seen


def bounds(manifest: Manifest) -> list[float]:
    """The lowest cosine of each graph.

    The graphs feed each other here, so what a graph may lose by its own precision it may lose once more for each graph
    before it that is not exact.
    """
    loss, lost, lowest = 1 - min(EXACT_COSINE, manifest.accept.cosine), 0.0, []
    for graph in manifest.graphs:
        lost += loss if graph.precision != "float32" else 0.0
        lowest.append(1 - max(lost, 1 - EXACT_COSINE))
    return lowest


def _refuse_unlike(golden: Golden, prompt: Prompt, inputs: Tensors) -> None:
    """
    Raises:
        BundleError: the recording could not be fed to the graphs. (Another text may have another length.)
    """
    for name, tensor in stored(prompt_arrays(prompt)).items():
        if name not in inputs:
            raise BundleError(f"`{golden.path}/inputs.npz` has no `{name}`", hint="export the bundle again")
        found = inputs[name]
        same_shape = found.shape == tensor.shape or (tensor.dtype.kind == "i" and found.ndim == tensor.ndim)
        if found.dtype != tensor.dtype or not same_shape or not found.size:
            raise BundleError(
                f"`{name}` in `{golden.path}/inputs.npz` is {found.dtype} {found.shape}, "
                f"expected {tensor.dtype} {tensor.shape}",
                hint="export the bundle again",
            )
    if len(golden.tokens) > min(LIMIT, prompt.capacity - len(inputs.get("tokens", prompt.tokens))):
        raise BundleError(f"the answer in `{golden.path}` is {len(golden.tokens)} tokens long, more than fit")


def _check_inputs(pipeline: Model, golden: Golden, prompt: Prompt, inputs: Tensors) -> Check:
    scale = float(np.max(pipeline.config["image"].get("image_std") or 1.0))
    own = stored(prompt_arrays(prompt))
    numbers = {name: tensor for name, tensor in own.items() if tensor.dtype.kind == "f"}
    worst = max((float(np.abs(tensor - inputs[name]).max()) * scale for name, tensor in numbers.items()), default=0.0)
    texts = {name: tensor for name, tensor in own.items() if name not in numbers}
    same_text = all(np.array_equal(tensor, inputs[name]) for name, tensor in texts.items())
    note = "" if same_text else "the text became other tokens"
    return Check(golden.path, "preprocess", worst, PIXEL_BOUND, worst <= PIXEL_BOUND and same_text, note)


def _check_outputs(golden: Golden, component: str, outputs: Tensors, seen: Record, bound: float) -> Check:
    names = [name for name in seen.outputs if name.startswith(f"{component}/")]
    cosine, worst = min(((_cosine(outputs[name], seen.outputs[name]), name) for name in names), default=(1.0, ""))
    return Check(golden.path, component, cosine, bound, cosine >= bound, "" if cosine >= bound else f"in {worst}")


def _check_tokens(bundle: Bundle, answered: Sequence[Record]) -> Check:
    """Every answer must be the recorded one in float32; a quantized graph may round the other way on another engine,
    so there as many must be as the recipe accepts of torch."""
    manifest = bundle.manifest
    pairs = zip(manifest.golden, answered, strict=True)
    other = [golden.path for golden, seen in pairs if golden.tokens != seen.tokens]
    share = 1 - len(other) / len(answered)
    bound = 1.0 if all(graph.precision == "float32" for graph in manifest.graphs) else manifest.accept.answers
    return Check("all", "tokens", share, bound, share >= bound, f"not those of {', '.join(other)}" if other else "")


def _cosine(want: np.ndarray, got: np.ndarray) -> float:
    if want.shape != got.shape or want.dtype.kind not in "fiub":
        return -1.0
    if not (np.isfinite(want).all() and np.isfinite(got).all()):
        return -1.0
    a, b = want.astype(np.float64), got.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else float(np.array_equal(a, b))
