"""ONNX Runtime on an NVIDIA GPU, where the installed build can: a fall-back on boards whose TensorRT cannot be used.

CUDA before TensorRT: inside ONNX Runtime the latter builds its engines anew at every start, for minutes.

A build without kernels for this GPU opens graphs and then fails at the first run, or hands everything to the CPU in
silence. The wheels of the index are such builds on a Jetson: those of onnxruntime-gpu 1.31 for aarch64 have kernels for
compute capability 8.9 to 12.1, not for 8.7 (Orin) or 11.0 (Thor), and need Python 3.11. So a tiny graph is run on the
GPU before anything is promised.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mmedge.backends._engine import reason
from mmedge.backends.onnxruntime import OnnxRuntime, OnnxRuntimeSession, _exceptions, _library
from mmedge.core.backend import NO_OPTIONS, Options
from mmedge.core.manifest import Graph
from mmedge.errors import BackendError

PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider")
"""The first that the installed build offers is used."""

_SILENT = 4
_SQUARE = (
    b'\x08\x08::\n\x0e\n\x01x\n\x01x\x12\x01y"\x03Mul\x12\x06square'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x08b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x08B\x04\n\x00\x10\x11"
)
"""An ONNX model: y = x * x of eight numbers. The package that could write it is not on a device."""
_HINT = (
    "on a Jetson install a build made for it, as `mmedge doctor` lists them; the onnxruntime-gpu of the index has no "
    "kernels for its GPU"
)


class OnnxRuntimeGpu(OnnxRuntime):
    """Runs ONNX files on the GPU; the cache of a decoder and what is held stay there."""

    name = "onnxruntime_gpu"
    device = "cuda"

    def version(self) -> str:
        """Such as ``1.23.0 (CUDA)``.

        Raises:
            BackendError: there is no build for a GPU, or it cannot compute on this one.
        """
        provider = _provider()
        _try(provider)
        return f"{super().version()} ({provider.removesuffix('ExecutionProvider')})"

    def open(self, graph: Graph, artifact: Path, threads: int = 0, options: Options = NO_OPTIONS) -> OnnxRuntimeSession:
        self.version()
        session = super().open(graph, artifact, threads, options)
        try:
            _refuse_cpu(session.providers(), _provider(), f"`{graph.component}`")
        except BackendError:
            session.close()
            raise
        return session

    def providers(self) -> list[str]:
        return [_provider(), "CPUExecutionProvider"]


def _provider() -> str:
    offered = _library().get_available_providers()
    for name in PROVIDERS:
        if name in offered:
            return name
    raise BackendError(f"onnxruntime {_library().__version__} is a build for the CPU only", hint=_HINT)


@cache
def _try(provider: str) -> None:
    """Compute something on the GPU, once.

    Raises:
        BackendError: it cannot.
    """
    x = np.arange(8, dtype=np.float32)
    failures: tuple[type[Exception], ...] = (*_exceptions(), ValueError)
    settings: Any = _library().SessionOptions()
    settings.log_severity_level = _SILENT
    try:
        # The CPU is not offered: what the GPU cannot do fails.
        session = _library().InferenceSession(_SQUARE, settings, providers=[provider])
        _refuse_cpu(session.get_providers(), provider, "a trial")
        (y,) = session.run(None, {"x": x})
    except failures as error:
        raise BackendError(f"onnxruntime cannot compute on this GPU: {reason(error)}", hint=_HINT) from error
    if not np.array_equal(y, x * x):
        raise BackendError("onnxruntime computes wrongly on this GPU", hint=_HINT)


def _refuse_cpu(used: list[str], provider: str, what: str) -> None:
    if provider not in used:
        raise BackendError(
            f"onnxruntime offers {provider}, but opened {what} without it: its libraries do not load here", hint=_HINT
        )


BACKEND = OnnxRuntimeGpu()
