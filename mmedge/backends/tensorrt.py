"""TensorRT on an NVIDIA GPU, written for the Jetson boards: versions 8.6, 10 and 11 on one path.

An engine is built on the device that runs it, by `_tensorrt_build`, and run by `_tensorrt_session`. All of it was
written against NVIDIA's documentation and exercised against doubles of the module and of the CUDA runtime, which run
the graphs on ONNX Runtime and have exactly the members of each version; no part of it was run on a GPU. TensorRT 8.6
reads operator set 17 only: the shipped targets are for 10.3 and later.
"""

from __future__ import annotations

import mmap
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mmedge.backends._cuda import cuda
from mmedge.backends._engine import told_as_ours
from mmedge.backends._tensorrt import check_cache, failure, library, must, start
from mmedge.backends._tensorrt_build import Progress, build
from mmedge.backends._tensorrt_session import TensorRtSession
from mmedge.core.backend import NO_OPTIONS, Options
from mmedge.core.board import l4t
from mmedge.core.manifest import Graph


class TensorRT:
    """Opens what it built on this device; the cache of a decoder stays in two sets of buffers there."""

    name = "tensorrt"
    progress: Progress = staticmethod(lambda phase, part: None)
    """Called while an engine is built, with what is being done and the part of the whole that is done (0 to 1). Before
    TensorRT 10 nobody knows, and it is not called."""

    def version(self) -> str:
        return str(library().__version__)

    def tied_to(self) -> dict[str, str]:
        library()  # who lacks the package has to hear of that first
        return {"compute_capability": cuda().compute_capability(), "l4t": l4t()}

    def compiles(self, graph: Graph) -> bool:
        return True

    def compile(self, graph: Graph, source: Path, output: Path, options: Options = NO_OPTIONS) -> Path:
        return build(graph, source, output, options, self.progress)

    def open(self, graph: Graph, artifact: Path, threads: int = 0, options: Options = NO_OPTIONS) -> TensorRtSession:
        """The option ``cuda_graph``, unless it is false, lets the step of one token be recorded once and replayed."""
        check_cache(graph)
        engine = _engine(graph, artifact)
        owned = ExitStack()
        try:
            return TensorRtSession(graph, engine, cuda(), owned, bool(options.get("cuda_graph", True)))
        except BaseException:
            owned.close()
            raise


def _engine(graph: Graph, artifact: Path) -> Any:
    """The engine in a file; once its weights are on the device, nothing of the file is needed."""
    what = f"open `{graph.component}`"
    runtime = start(library().Runtime, what)
    with (
        told_as_ours(f"tensorrt cannot {what}", (OSError, ValueError)),
        artifact.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan,  # some versions read it without Python's lock:
    ):  # plain bytes can bear that, a numpy array cannot
        return must(
            runtime.deserialize_cuda_engine(plan),
            lambda: failure(
                what,
                hint="an engine fits the device and the version of TensorRT that built it: compile the bundle again",
            ),
        )


BACKEND = TensorRT()
