"""What an open TensorRT engine asks for and gives, and its execution contexts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmedge.backends._cuda import Cuda
from mmedge.backends._engine import check_edges
from mmedge.backends._tensorrt import failure, inputs_of, library, must, numpy_type
from mmedge.core.manifest import Graph
from mmedge.core.ports import Port
from mmedge.errors import BackendError, MmedgeError

_log = logging.getLogger(__name__)


class Edges:
    """The inputs and outputs of an engine, which must be those that the bundle promises.

    Raises:
        BackendError: naming the first that differs.
    """

    def __init__(self, graph: Graph, engine: Any) -> None:
        mode, location = library().TensorIOMode, library().TensorLocation
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        self.inputs = tuple(name for name in names if engine.get_tensor_mode(name) == mode.INPUT)
        self.outputs = tuple(name for name in names if name not in self.inputs)
        check_edges(graph, self.inputs, self.outputs)
        self.dtypes = {name: numpy_type(engine.get_tensor_dtype(name), name) for name in names}
        cache = graph.cache
        for port in (*inputs_of(graph), *graph.outputs, *(cache.present() if cache else ())):
            self._check(port, graph, tuple(engine.get_tensor_shape(port.name)))
            if engine.get_tensor_location(port.name) != location.DEVICE:
                raise BackendError(f"the engine of `{graph.component}` wants `{port.name}` in the host's memory")

    def _check(self, port: Port, graph: Graph, shape: tuple[int, ...]) -> None:
        """TensorRT before 10 has no int64: what the graph says is int64, its engines take and give as int32."""
        dtype, promised = self.dtypes[port.name], np.dtype(port.dtype)
        fits = dtype == promised or [promised.name, dtype.name] == ["int64", "int32"]
        fits &= len(shape) == len(port.shape)
        for size, asked in zip(shape, port.shape, strict=False):
            fits &= size == asked or (size == -1 and isinstance(asked, str)) or self._inferred(port, size, asked)
        if not fits:
            raise BackendError(
                f"`{port.name}` of `{graph.component}` is {dtype} {list(shape)} in the engine, "
                f"the bundle says {port.dtype} [{', '.join(map(str, port.shape))}]",
                hint="compile the bundle again",
            )

    def _inferred(self, port: Port, size: int, asked: int | str) -> bool:
        """Of outputs TensorRT may know less than the bundle, until the inputs have sizes, or more."""
        return port.name in self.outputs and (size == -1 or isinstance(asked, str))


class Way:
    """One way of running an engine: an execution context with its profile and addresses, which never change."""

    def __init__(self, engine: Any, profile: int, scratch: int, cuda: Cuda, stream: int, component: str) -> None:
        self._cuda = cuda
        self._stream = stream
        self._component = component
        self._context = must(_new_context(engine, scratch), lambda: failure(f"open `{component}`"))
        self._choose(profile)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._recording = 0
        self._warm = False

    def _choose(self, profile: int) -> None:
        try:
            self._context.set_optimization_profile_async(profile, self._stream)
        except RuntimeError as error:  # the one call that does not answer with False
            raise failure(f"choose the profile {profile} of `{self._component}`") from error
        self._cuda.synchronize(self._stream)

    def bind(self, addresses: Mapping[str, int]) -> None:
        for name, address in addresses.items():
            self._must(self._context.set_tensor_address(name, address), f"place `{name}` of")

    def set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """A recording is of these shapes and no others."""
        for name, shape in shapes.items():
            if self._shapes.get(name) != shape:
                self._must(self._context.set_input_shape(name, shape), f"set `{name}` to {list(shape)} in")
                self._shapes[name] = shape
                self.forget()

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an output, for the shapes that were set."""
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise BackendError(f"the size of `{name}` of `{self._component}` depends on the values of its inputs")
        return shape

    def run(self, record: bool) -> bool:
        """Enqueue a run, from its recording if there is one; ``record`` lets one be made after a first run without.

        Returns false if it cannot be recorded.
        """
        recordable = True
        if record and self._warm and not self._recording:
            try:
                self._recording = self._cuda.record(self._stream, self._enqueue)
            except MmedgeError as error:
                _log.warning("`%s` is run without a CUDA graph: %s", self._component, error.message)
                recordable = False
        if self._recording:
            self._cuda.launch(self._recording, self._stream)
        else:
            self._enqueue()
            self._warm = True
        return recordable

    def forget(self) -> None:
        """Give the recording back."""
        self._warm = False
        if self._recording:
            recording, self._recording = self._recording, 0
            self._cuda.destroy_recording(recording)

    def _enqueue(self) -> None:
        self._must(self._context.execute_async_v3(self._stream), "run")

    def _must(self, result: Any, what: str) -> None:
        must(result, lambda: failure(f"{what} `{self._component}`"))


def scratch_size(engine: Any) -> int:
    """Bytes that a run needs between its inputs and outputs, in the profile that needs most."""
    return int(engine.device_memory_size_v2 if hasattr(engine, "device_memory_size_v2") else engine.device_memory_size)


def _new_context(engine: Any, scratch: int) -> Any:
    """Without memory of its own: contexts that run one after the other share what lies at ``scratch``."""
    if hasattr(library(), "ExecutionContextAllocationStrategy"):
        context = engine.create_execution_context(library().ExecutionContextAllocationStrategy.USER_MANAGED)
    else:
        context = engine.create_execution_context_without_device_memory()
    if context is None:
        return None
    if hasattr(context, "set_device_memory"):
        context.set_device_memory(scratch, scratch_size(engine))
    else:
        context.device_memory = scratch
    return context
