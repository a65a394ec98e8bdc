"""How the double runs: runtime, engine and execution contexts, with ONNX Runtime behind them."""

from __future__ import annotations

import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
from mmedge_doubles.calls import convert, takes
from mmedge_doubles.cudart import ALIGNMENT, Misuse
from mmedge_doubles.plan import Tensor, from_bytes

NUMPY = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
}
SCRATCH = 4096
"""Bytes that every engine says it needs between inputs and outputs."""
UNKNOWN_SIZES = {"NonZero", "NonMaxSuppression", "Unique", "Compress"}


class Runtime:
    @takes("ILogger")
    def __init__(self, logger: Any) -> None:
        self._world.check_device(logger)
        self._state = SimpleNamespace(logger=logger)

    @takes("plain buffer")
    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        world, say = self._world, lambda text: self._world.say(self._state.logger, text)
        settings, wrong = world.settings, "Error Code 1: Serialization (Serialization assertion {} failed.{})"
        try:
            plan, model = from_bytes(serialized_engine)
        except ValueError:
            return say(wrong.format("magicTagRead == kMAGIC_TAG", "Magic tag does not match"))
        if plan.version != settings.version:
            return say(
                "Error Code 6: API Usage Error (The engine plan file is not compatible with this version of TensorRT, "
                f"expecting library version {settings.version} got {plan.version}, please rebuild.)"
            )
        if plan.compute_capability != settings.compute_capability:
            return say(
                "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, expecting "
                f"compute {settings.compute_capability} got compute {plan.compute_capability}, please rebuild.)"
            )
        if not world.cudart.take(len(model)):
            return say("Error Code 1: Cuda Runtime (out of memory)")
        engine = world.new(
            "ICudaEngine", plan=plan, model=model, logger=self._state.logger, session=None, contexts=weakref.WeakSet()
        )
        weakref.finalize(engine, world.cudart.give, len(model))
        return engine


class ICudaEngine:
    @property
    def num_io_tensors(self) -> int:
        return len(self._state.plan.inputs) + len(self._state.plan.outputs)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._state.plan.profiles)

    @takes(int)
    def get_tensor_name(self, index: int) -> str:
        plan = self._state.plan
        return str([*plan.inputs, *plan.outputs][index].name)

    @takes(str)
    def get_tensor_mode(self, name: str) -> Any:
        mode = self._world.module.TensorIOMode
        return mode.INPUT if self._find(name) in self._state.plan.inputs else mode.OUTPUT

    @takes(str)
    def get_tensor_shape(self, name: str) -> Any:
        return self._world.dims(self._find(name).shape)

    @takes(str)
    def get_tensor_dtype(self, name: str) -> Any:
        return self._world.module.DataType[self._find(name).dtype]

    @takes(str)
    def get_tensor_location(self, name: str) -> Any:
        self._find(name)
        return self._world.module.TensorLocation.DEVICE

    @takes(str, int)
    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Any]:
        return [self._world.dims(shape) for shape in self._profile_shape(name, profile_index)]

    def _profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        tensor, profile = self._find(name), self._state.plan.profiles[profile_index]
        if tensor not in self._state.plan.inputs:
            return []
        return [tuple(shape) for shape in profile.get(name, [tensor.shape] * 3)]

    @takes(str)
    def get_aliased_input_tensor(self, tensor_name: str) -> str | None:
        self._find(tensor_name)
        return self._state.plan.aliases.get(tensor_name)  # type: ignore[no-any-return]

    @property
    def device_memory_size(self) -> int:
        return SCRATCH

    @property
    def device_memory_size_v2(self) -> int:
        return SCRATCH

    def create_execution_context_without_device_memory(self) -> Any:
        return self._context(managed=False)

    def create_execution_context(self, strategy: Any = None) -> Any:
        strategies = getattr(self._world.module, "ExecutionContextAllocationStrategy", None)
        if strategy is not None and (strategies is None or not isinstance(strategy, strategies)):
            raise TypeError("create_execution_context(): incompatible function arguments")
        return self._context(managed=strategy is None or strategy.name != "USER_MANAGED")

    def _context(self, managed: bool) -> Any:
        context = self._world.new(
            "IExecutionContext", engine=self, profile=-1, shapes={}, addresses={}, warm=None, managed=managed, scratch=0
        )
        self._state.contexts.add(context)
        taken = {other._state.profile for other in self._state.contexts}
        if self._state.plan.shares_profiles or 0 not in taken:
            context._state.profile = 0
        return context

    def _find(self, name: str) -> Tensor:
        for tensor in (*self._state.plan.inputs, *self._state.plan.outputs):
            if tensor.name == name:
                return tensor
        raise Misuse(f"the engine has no tensor {name}")

    def _fail(self, text: str) -> bool:
        self._world.say(self._state.logger, f"IExecutionContext::{text}")
        return False

    def _compute(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The graph on ONNX Runtime, in the types of the graph."""
        import onnxruntime

        if self._state.session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = 1, 4
            self._state.session = onnxruntime.InferenceSession(
                self._state.model, options, providers=["CPUExecutionProvider"]
            )
        session = self._state.session
        asked = {edge.name: edge.type for edge in session.get_inputs()}
        feeds = {
            name: value.astype(np.int64) if asked[name] == "tensor(int64)" else value for name, value in feeds.items()
        }
        outputs = dict(zip((edge.name for edge in session.get_outputs()), session.run(None, feeds), strict=True))
        if spoil := self._world.settings.spoil:
            outputs = {name: _spoiled(value, spoil) for name, value in outputs.items()}
        return outputs


class Dims:
    """Sizes that can be iterated and compared, and little else."""

    def __init__(self, shape: Any = ()) -> None:
        self._state = SimpleNamespace(sizes=list(shape))

    def __len__(self) -> int:
        return len(self._state.sizes)

    def __getitem__(self, index: Any) -> Any:
        return self._state.sizes[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other)  # type: ignore[call-overload]

    def __repr__(self) -> str:
        return str(tuple(self))

    __str__ = __repr__
    __hash__ = None


class IExecutionContext:
    @property
    def engine(self) -> Any:
        return self._state.engine

    @property
    def active_optimization_profile(self) -> int:
        return int(self._state.profile)

    @takes(int, int)
    def set_device_memory(self, memory: int, size: int) -> None:
        if size < SCRATCH:
            raise Misuse(f"{size} bytes are too little for an execution")
        self._state.scratch = memory

    def _write_memory(self, memory: int) -> None:
        self._state.scratch = convert(memory, int, "device_memory")

    device_memory = property(None, _write_memory)

    @takes(int, int)
    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        engine, plan = self._state.engine, self._state.engine._state.plan
        if self._world.cudart.stream(stream_handle).captured is not None:
            raise Misuse("a profile is chosen while the stream is captured")
        if not 0 <= profile_index < len(plan.profiles):
            engine._fail(f"setOptimizationProfileAsync: there is no profile {profile_index}")
            raise RuntimeError("Error in set optimization profile async.")
        others = (other for other in engine._state.contexts if other is not self)
        if not plan.shares_profiles and profile_index in (other._state.profile for other in others):
            engine._fail(f"setOptimizationProfileAsync: profile {profile_index} is used by another context")
            raise RuntimeError("Error in set optimization profile async.")
        self._state.profile, self._state.shapes, self._state.warm = profile_index, {}, None
        return True

    @takes(str, "dims")
    def set_input_shape(self, name: str, shape: list[int]) -> bool:
        state, engine = self._state, self._state.engine
        tensor = engine._find(name)
        if tensor not in engine._state.plan.inputs:
            return bool(engine._fail(f"setInputShape: {name} is no input"))
        if state.profile < 0:
            return bool(engine._fail("setInputShape: no optimization profile was chosen"))
        smallest, _, largest = engine._profile_shape(name, state.profile)
        fits = len(shape) == len(tensor.shape)
        for low, size, high in zip(smallest, shape, largest, strict=False):
            fits &= low <= size <= high
        if not fits:
            return bool(
                engine._fail(
                    f"setInputShape: Error Code 3: API Usage Error (Parameter check failed, condition: "
                    f"satisfyProfile. Set dimensions for {name} are {shape}, min {smallest}, max {largest})"
                )
            )
        state.shapes[name] = tuple(shape)
        return True

    @takes(str)
    def get_tensor_shape(self, name: str) -> Any:
        return self._world.dims(self._shape(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        engine = self._state.engine
        tensor, plan = engine._find(name), engine._state.plan
        if tensor in plan.inputs:
            return tuple(self._state.shapes.get(name, tensor.shape))
        if -1 not in tensor.shape:
            return tuple(tensor.shape)
        return self._infer(tensor)

    @takes(str, int)
    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._state.engine._find(name)
        if memory % ALIGNMENT:
            raise Misuse(f"the address of {name} is not aligned to {ALIGNMENT} bytes")
        self._state.addresses[name] = memory
        return True

    @takes(str)
    def get_tensor_address(self, name: str) -> int:
        return int(self._state.addresses.get(name, 0))

    @takes(int)
    def execute_async_v3(self, stream_handle: int) -> bool:
        state, engine, cudart = self._state, self._state.engine, self._world.cudart
        plan, stream = engine._state.plan, cudart.stream(stream_handle)
        for tensor in (*plan.inputs, *plan.outputs):
            if not state.addresses.get(tensor.name):
                return bool(engine._fail(f"enqueueV3: Address is not set for tensor {tensor.name}. "))
        if missing := [tensor.name for tensor in plan.inputs if -1 in self._shape(tensor.name)]:
            return bool(engine._fail(f"enqueueV3: the shape of {missing[0]} was not specified"))
        if not state.managed and (not state.scratch or state.scratch % ALIGNMENT):
            raise Misuse("a context without device memory of its own was given none")
        shapes = {tensor.name: self._shape(tensor.name) for tensor in (*plan.inputs, *plan.outputs)}
        self._check_overlaps(shapes)
        if stream.captured is not None and (state.warm != shapes or not self._world.settings.capturable):
            stream.invalid = True
            return bool(engine._fail("enqueueV3: Error Code 1: Cuda Runtime (operation not permitted when capturing)"))
        if stream.captured is None:
            state.warm = shapes
        addresses, profile, scratch = dict(state.addresses), state.profile, 0 if state.managed else state.scratch
        cudart.enqueue(stream_handle, lambda: self._execute(shapes, addresses, profile, scratch))
        return True

    def _execute(self, shapes: dict[str, Any], addresses: dict[str, int], profile: int, scratch: int) -> None:
        engine, cudart = self._state.engine, self._world.cudart
        if scratch:
            cudart.array(scratch, SCRATCH).fill(0xFF)

        def view(tensor: Tensor) -> np.ndarray:
            shape, dtype = shapes[tensor.name], np.dtype(NUMPY[tensor.dtype])
            data = cudart.array(addresses[tensor.name], int(np.prod(shape)) * dtype.itemsize)
            return data.view(dtype).reshape(shape)

        feeds = {tensor.name: view(tensor).copy() for tensor in engine._state.plan.inputs}
        into = {tensor.name: view(tensor) for tensor in engine._state.plan.outputs}
        try:
            outputs = engine._compute(feeds)
        except Exception:  # of ONNX Runtime, which checks what a kernel would not
            return cudart.fault()
        self._world.executions.append(profile)
        for name, value in outputs.items():
            if into[name].shape != value.shape:
                raise Misuse(f"the output {name} has the shape {value.shape}, not {into[name].shape}")
            into[name][...] = value
        return None

    def _check_overlaps(self, shapes: dict[str, Any]) -> None:
        """Outputs lie apart from everything else, except where the engine writes in place: there they must not."""
        plan, addresses = self._state.engine._state.plan, self._state.addresses
        for output in plan.outputs:
            alias = plan.aliases.get(output.name)
            if alias and addresses[alias] != addresses[output.name]:
                raise Misuse(f"{output.name} is written in place, so it must lie where {alias} lies")
            for other in (*plan.inputs, *plan.outputs):
                if other.name not in (output.name, alias) and addresses[other.name] == addresses[output.name]:
                    raise Misuse(f"{output.name} and {other.name} lie at the same address")

    def _infer(self, tensor: Tensor) -> tuple[int, ...]:
        """The size of an output: by its words, else by a run on zeros; -1 where values decide."""
        engine = self._state.engine
        plan = engine._state.plan
        sizes: dict[str, int] = {}
        for given in plan.inputs:
            sizes |= dict(zip(given.words, self._shape(given.name), strict=True))
        sizes.pop("", None)
        known = [
            sizes.get(word, size) if size < 0 else size for word, size in zip(tensor.words, tensor.shape, strict=True)
        ]
        if -1 not in known:
            return tuple(known)
        import onnx

        if {node.op_type for node in onnx.load_from_string(engine._state.model).graph.node} & UNKNOWN_SIZES:
            return tuple(known)
        zeros = {given.name: np.zeros(self._shape(given.name), NUMPY[given.dtype]) for given in plan.inputs}
        return tuple(engine._compute(zeros)[tensor.name].shape)


def _spoiled(value: np.ndarray, by: float) -> np.ndarray:
    return value + np.asarray(by, value.dtype) if value.dtype.kind == "f" else value


ACTS = {kind.__name__: kind for kind in (Runtime, ICudaEngine, IExecutionContext, Dims)}
