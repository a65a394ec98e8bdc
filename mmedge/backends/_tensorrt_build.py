"""From an ONNX file to a TensorRT engine, which fits this device and this version of TensorRT only.

One path for the versions 8.6 to 11: what a version lacks is looked for, not derived from its number. Where a network
can be strongly typed, TensorRT computes in the types that the graph says; before that (8.6) it is allowed float16 and
int8 instead, and chooses.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from mmedge.backends._engine import check_edges, reason, told_as_ours
from mmedge.backends._tensorrt import check_cache, failure, library, log, must, profiles_of, spell, start, varying
from mmedge.core.backend import Options
from mmedge.core.manifest import Graph
from mmedge.core.names import shown
from mmedge.core.ports import Port, Span
from mmedge.errors import BackendError, MmedgeError

_log = logging.getLogger(__name__)
_MIB = 1 << 20

Profiles: TypeAlias = tuple[dict[str, Span], ...]
Shape: TypeAlias = tuple[int, ...]
Ends: TypeAlias = tuple[Shape, Shape, Shape]
"""The smallest, the usual and the largest."""

Progress: TypeAlias = Callable[[str, float], None]
"""Told the name of a phase and the part of the whole that is done, 0 to 1."""


def build(graph: Graph, source: Path, output: Path, options: Options, progress: Progress) -> Path:
    """Write the engine of ``source`` into the folder ``output``, and what was learnt of this device beside the folder.

    Raises:
        BackendError: TensorRT refuses the graph, or finds no way to run it here.
        ResourceError: there is not enough memory.
    """
    trt, what = library(), f"build `{graph.component}`"
    check_cache(graph)
    builder = start(trt.Builder, what)
    with told_as_ours(f"tensorrt cannot {what}", (RuntimeError,)):
        network = must(builder.create_network(_network_flags(trt)), lambda: failure(what))
        parser = trt.OnnxParser(network, log())  # owns the weights: it must outlive the network
        if not parser.parse_from_file(str(source)):
            raise failure(f"read `{graph.component}`", _parser_errors(parser))
        _check_network(graph, network)
        config = _config(trt, builder, graph, options, progress)
        timings = output.parent / f"tensorrt-{trt.__version__}.timings"
        _read_timings(config, timings)
        plan = must(builder.build_serialized_network(network, config), lambda: failure(what))
    del parser
    artifact = output / f"{graph.component}.plan"
    with artifact.open("wb") as file:  # first: it took minutes, and the rest only saves some the next time
        file.write(plan)
    _write_timings(config, timings)
    return artifact


def _network_flags(trt: Any) -> int:
    """Strongly typed where that exists; the version that lacks it must be told that the batch is a size like others."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED if hasattr(flags, "STRONGLY_TYPED") else flags.EXPLICIT_BATCH)


def _parser_errors(parser: Any) -> list[str]:
    return [_told(parser.get_error(index)) for index in range(parser.num_errors)]


def _told(error: Any) -> str:
    """One error of the parser: which node, what is wrong, where in the parser's own code."""
    node = f"node {error.node()}"
    if hasattr(error, "node_name"):
        node = f"{error.node_operator() or 'node'} `{error.node_name() or error.node()}`"
    return f"{node}: {error.desc()} ({Path(error.file()).name}:{error.line()})"


def _check_network(graph: Graph, network: Any) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    check_edges(graph, (tensor.name for tensor in inputs), (tensor.name for tensor in outputs))
    for tensor in inputs:
        if tensor.is_shape_tensor:
            raise BackendError(
                f"tensorrt cannot build `{graph.component}`: the values of `{shown(tensor.name)}` become sizes"
            )


def _config(trt: Any, builder: Any, graph: Graph, options: Options, progress: Progress) -> Any:
    config = builder.create_builder_config()
    if "workspace_mb" in options:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(options["workspace_mb"]) * _MIB)
    if "builder_level" in options:
        config.builder_optimization_level = int(options["builder_level"])
    if graph.precision == "float32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default: products with 10 instead of 23 bits
    elif not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        _allow_precision(trt, config, graph)
    if hasattr(trt.PreviewFeature, "PROFILE_SHARING_0806"):  # later it is always so: two contexts for one profile
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    _add_profiles(builder, config, graph)
    if hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = _monitor(trt, progress)
    return config


def _allow_precision(trt: Any, config: Any, graph: Graph) -> None:
    """What int8 leaves in floating point is float16: without both it would be float32."""
    config.set_flag(trt.BuilderFlag.FP16)
    if graph.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)


def _add_profiles(builder: Any, config: Any, graph: Graph) -> None:
    """For each way of running the range of every input that varies."""
    for spans, shapes in zip(profiles_of(graph), shapes_of(graph), strict=True):
        profile = builder.create_optimization_profile()
        for name, ends in shapes.items():
            profile.set_shape(name, *ends)
        if config.add_optimization_profile(profile) < 0:
            raise failure(f"build `{graph.component}` for {spell(spans)}")


def shapes_of(graph: Graph, profiles: Profiles | None = None) -> tuple[dict[str, Ends], ...]:
    """For each profile the smallest, usual and largest shape of every input that varies; ``profiles`` may stand for
    those of the graph.

    Raises:
        BackendError: no range is given for a size.
    """
    ports, known = varying(graph), profiles_of(graph) if profiles is None else profiles
    for port in ports:
        words = {size for size in port.shape if isinstance(size, str)}
        if not known or any(words - spans.keys() for spans in known):
            raise _unranged(graph, port)
    return tuple({port.name: _ends(port, spans) for port in ports} for spans in known)


def _ends(port: Port, spans: Mapping[str, Span]) -> Ends:
    def shape(end: str) -> Shape:
        return tuple(size if isinstance(size, int) else getattr(spans[size], end) for size in port.shape)

    return shape("smallest"), shape("usual"), shape("largest")


def _unranged(graph: Graph, port: Port) -> BackendError:
    shape = ", ".join(map(str, port.shape))
    return BackendError(
        f"tensorrt cannot build `{graph.component}`: no range is given for a size of `{port.name}` [{shape}]",
        hint="export the model again with ranges for its sizes",
    )


def _read_timings(config: Any, path: Path) -> None:
    """What earlier builds measured; of another device it is refused by TensorRT, and measured anew."""
    known = b""
    with _timings_optional(path):
        known = path.read_bytes() if path.is_file() else b""
    timings = config.create_timing_cache(known)
    if timings is None or not config.set_timing_cache(timings, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)
    log().errors.clear()


def _write_timings(config: Any, path: Path) -> None:
    """Whole or not at all: another process may be building beside this one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with _timings_optional(path):
        timings = must(config.get_timing_cache(), lambda: failure("tell what was measured"))
        try:
            with draft.open("wb") as file:
                file.write(must(timings.serialize(), lambda: failure("tell what was measured")))
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def _timings_optional(path: Path) -> Iterator[None]:
    """Without them an engine is built all the same, it only takes longer."""
    try:
        yield
    except (OSError, RuntimeError, MmedgeError) as error:
        _log.warning("what was measured while building cannot be kept in `%s`: %s", path, reason(error))


def _monitor(trt: Any, progress: Progress) -> Any:
    """Phases lie inside each other: what is told is the part of the outermost, counting what the inner ones did.

    It is called from C++, where an exception can end the process: phases of one name, and such as end without having
    begun, are borne.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.open: dict[str, tuple[str | None, int]] = {}
            self.done: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.open[phase_name] = (parent_phase, num_steps)
            self.done[phase_name] = 0

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.done[phase_name] = step + 1
            self.tell(phase_name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            _, steps = self.open.get(phase_name, (None, 0))
            self.done[phase_name] = steps
            self.tell(phase_name)
            self.open.pop(phase_name, None)
            self.done.pop(phase_name, None)

        def tell(self, phase: str) -> None:
            part, outer, passed = 0.0, phase, set[str]()
            while outer not in passed and (found := self.open.get(outer)):
                passed.add(outer)
                part = min(1.0, (self.done.get(outer, 0) + part) / max(found[1], 1))
                outer = found[0] or ""
            if passed:
                progress(phase, part)

    return Monitor()
