"""How the double builds: builder, network, parser, configuration, profiles."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
from mmedge_doubles.calls import takes
from mmedge_doubles.cudart import Misuse
from mmedge_doubles.plan import Plan, Tensor, to_bytes
from onnx import TensorProto

OPERATORS_OF = {"8.6": "10.3", "10.3": "10.3", "10.13": "10.13", "10.16": "10.16", "11.1": "11.x"}
"""For 8.6 there is no table: the nearest is taken, cut down to what `NEWEST_OPSET` knew."""

NEWEST_OPSET = {"8.6": 17}
"""Of ONNX, where the table reaches further than the version."""

TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}
# Inputs of these become sizes: (operator, position).
SIZES = {("Reshape", 1), ("Expand", 1), ("ConstantOfShape", 0), ("Tile", 1), ("Range", 0), ("Range", 1), ("Range", 2)}
SIZES |= {("Slice", position) for position in (1, 2, 3, 4)}
PASSING = {"Identity", "Cast", "Concat", "Squeeze", "Unsqueeze", "Add", "Sub", "Mul", "Div", "Gather", "Neg", "Where"}


@cache
def operators(version: str) -> dict[str, Any]:
    text = files("mmedge").joinpath("targets/data/tensorrt_operators.json").read_text()
    return dict(json.loads(text)[OPERATORS_OF[version]])


class ILogger:
    def __init__(self) -> None:
        self._state = SimpleNamespace()

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError('Tried to call pure virtual function "log"')


class Logger:
    def __init__(self, min_severity: Any = None) -> None:
        self._state = SimpleNamespace()

    def log(self, severity: Any, msg: str) -> None:
        print(msg)


class IProgressMonitor:
    def __init__(self) -> None:
        self._state = SimpleNamespace()


class Builder:
    @takes("ILogger")
    def __init__(self, logger: Any) -> None:
        self._world.check_device(logger)
        self._state = SimpleNamespace(logger=logger)

    @takes(int)
    def create_network(self, flags: int = 0) -> Any:
        known = self._world.module.NetworkDefinitionCreationFlag
        if flags >> len(known):
            raise ValueError(f"unknown flags {flags:#b}")
        explicit = not hasattr(known, "EXPLICIT_BATCH") or flags & 1 << int(known.EXPLICIT_BATCH)
        typed = hasattr(known, "STRONGLY_TYPED") and bool(flags & 1 << int(known.STRONGLY_TYPED))
        if not hasattr(known, "EXPLICIT_BATCH"):
            typed = True
        if hasattr(known, "STRONGLY_TYPED"):
            explicit = True  # from 10 on the flag is ignored
        return self._world.new(
            "INetworkDefinition", builder=self, model=None, explicit=explicit, typed=typed, parser=None, path=None
        )

    def create_builder_config(self) -> Any:
        return self._world.new(
            "IBuilderConfig",
            builder=self,
            flags={"TF32"},
            profiles=[],
            pools={},
            level=3,
            timings=None,
            monitor=None,
            features=set(),
        )

    def create_optimization_profile(self) -> Any:
        return self._world.new("IOptimizationProfile", shapes={})

    @takes("INetworkDefinition", "IBuilderConfig")
    def build_serialized_network(self, network: Any, config: Any) -> Any:
        world, state = self._world, self._state
        if network._state.builder is not self or config._state.builder is not self:
            raise Misuse("the network or the configuration belongs to another builder")
        if network._state.model is None:
            return world.say(state.logger, "Error Code 4: API Usage Error (Network must have at least one output)")
        if network._state.parser() is None:
            raise Misuse("the parser, which owns the weights, is gone before the engine is built")
        if refusal := _refusal(world, network, config):
            return world.say(state.logger, refusal)
        if not _report(config._state.monitor):
            return world.say(state.logger, "Error Code 10: Internal Error (Build was cancelled)")
        if world.settings.build_memory_mb:
            bytearray(world.settings.build_memory_mb << 20)
        if world.settings.build_error:
            return world.say(state.logger, world.settings.build_error)
        if config._state.timings is not None:
            config._state.timings._state.entries += 1
        model = network._state.model.SerializeToString()
        kind = world.module.IHostMemory
        return bytes.__new__(kind, to_bytes(_plan(world, network, config), model))


class INetworkDefinition:
    @property
    def num_inputs(self) -> int:
        return len(self._inputs())

    @property
    def num_outputs(self) -> int:
        return len(self._state.model.graph.output) if self._state.model else 0

    @takes(int)
    def get_input(self, index: int) -> Any:
        return self._tensor(self._inputs()[index], True)

    @takes(int)
    def get_output(self, index: int) -> Any:
        return self._tensor(self._state.model.graph.output[index], False)

    def _inputs(self) -> list[Any]:
        if self._state.model is None:
            return []
        constants = {tensor.name for tensor in self._state.model.graph.initializer}
        return [value for value in self._state.model.graph.input if value.name not in constants]

    def _tensor(self, value: Any, is_input: bool) -> Any:
        shape = tensor_of(value, self._world.settings.version).shape
        sizes = is_input and value.name in size_inputs(self._state.model)
        return self._world.new("ITensor", name=value.name, shape=shape, sizes=sizes)


class ITensor:
    @property
    def name(self) -> str:
        return str(self._state.name)

    @property
    def shape(self) -> Any:
        return self._world.dims(self._state.shape)

    @property
    def is_shape_tensor(self) -> bool:
        return bool(self._state.sizes)


class IOptimizationProfile:
    @takes(str, "dims", "dims", "dims")
    def set_shape(self, input: str, min: list[int], opt: list[int], max: list[int]) -> None:
        for low, middle, high in zip(min, opt, max, strict=True):
            for name, fits in (("min", low >= 0), ("opt", low <= middle), ("max", middle <= high)):
                if not fits:
                    raise RuntimeError(f"Shape provided for {name} is inconsistent with other shapes.")
        self._state.shapes[input] = [min, opt, max]

    @takes(str)
    def get_shape(self, input: str) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._state.shapes.get(input, [])]


class IBuilderConfig:
    @takes("MemoryPoolType", int)
    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        if pool_size < 0:
            raise TypeError("set_memory_pool_limit(): the size is negative")
        self._state.pools[pool.name] = pool_size

    @takes("MemoryPoolType")
    def get_memory_pool_limit(self, pool: Any) -> int:
        return int(self._state.pools.get(pool.name, 1 << 33))

    @property
    def builder_optimization_level(self) -> int:
        return int(self._state.level)

    @builder_optimization_level.setter
    def builder_optimization_level(self, level: int) -> None:
        if not 0 <= level <= 5:
            raise ValueError(f"the optimization level is {level}")
        self._state.level = level

    @takes("BuilderFlag")
    def set_flag(self, flag: Any) -> None:
        self._state.flags.add(flag.name)

    @takes("BuilderFlag")
    def clear_flag(self, flag: Any) -> None:
        self._state.flags.discard(flag.name)

    @takes("BuilderFlag")
    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._state.flags

    @takes("PreviewFeature", bool)
    def set_preview_feature(self, feature: Any, enable: bool) -> None:
        (self._state.features.add if enable else self._state.features.discard)(feature.name)

    @takes("IOptimizationProfile")
    def add_optimization_profile(self, profile: Any) -> int:
        if not profile._state.shapes:
            return -1
        self._state.profiles.append(profile._state.shapes)
        return len(self._state.profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._state.profiles)

    @takes("buffer")
    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        settings, entries, known = self._world.settings, 0, serialized_timing_cache
        device = [settings.version, settings.compute_capability]
        if known and not known.isascii():
            return None
        if known:
            *device, count = known.decode().split()
            entries = int(count)
        return self._world.new("ITimingCache", device=device, entries=entries)

    @takes("ITimingCache", bool)
    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        settings = self._world.settings
        if cache._state.device != [settings.version, settings.compute_capability] and not ignore_mismatch:
            self._world.say(self._state.builder._state.logger, "Error Code 3: the timing cache is of another device")
            return False
        self._state.timings = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._state.timings

    @property
    def progress_monitor(self) -> Any:
        return self._state.monitor

    @progress_monitor.setter
    @takes("IProgressMonitor")
    def progress_monitor(self, monitor: Any) -> None:
        self._state.monitor = monitor


class ITimingCache:
    def serialize(self) -> Any:
        text = " ".join([*self._state.device, str(self._state.entries)])
        return bytes.__new__(self._world.module.IHostMemory, text.encode())


class IHostMemory:
    """Bytes, as only those have the buffer protocol in Python; but their methods are not there."""

    @property
    def nbytes(self) -> int:
        return bytes.__len__(self)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") or name in vars(type(self)):
            return bytes.__getattribute__(self, name)
        raise AttributeError(f"'IHostMemory' object has no attribute '{name}'")


class OnnxParser:
    @takes("INetworkDefinition", "ILogger")
    def __init__(self, network: Any, logger: Any) -> None:
        self._state = SimpleNamespace(network=network, logger=logger, errors=[])

    @takes(str)
    def parse_from_file(self, model: str) -> bool:
        world, network = self._world, self._state.network._state
        if not network.explicit:
            return self._fail("This version of the ONNX parser only supports networks with an explicit batch dimension")
        try:
            read = onnx.load(model)
        except Exception as error:  # of protobuf, of the file system
            return self._fail(f"Failed to parse ONNX model from file: {model}! {type(error).__name__}")
        known = operators(world.settings.version)
        for index, node in enumerate(nodes_of(read.graph)):
            if node.domain not in ("", "ai.onnx") or not known.get(node.op_type, {}).get("supported"):
                self._fail(f"No importer registered for op: {node.op_type}", index, node)
        if newest := NEWEST_OPSET.get(world.settings.version):
            for text, index, node in _too_new(read, newest):
                self._fail(text, index, node)
        if not self._state.errors:
            network.model, network.parser, network.path = read, weakref.ref(self), Path(model)
        return not self._state.errors

    def _fail(self, text: str, index: int = -1, node: Any = None) -> bool:
        error = self._world.new("ParserError", text=text, index=index, node=node)
        self._state.errors.append(error)
        self._world.say(self._state.logger, f"In node {index}: {text}")
        return False

    @property
    def num_errors(self) -> int:
        return len(self._state.errors)

    @takes(int)
    def get_error(self, index: int) -> Any:
        return self._state.errors[index]

    def clear_errors(self) -> None:
        self._state.errors.clear()


class ParserError:
    def desc(self) -> str:
        return str(self._state.text)

    def node(self) -> int:
        return int(self._state.index)

    def node_name(self) -> str:
        return str(self._state.node.name) if self._state.node else ""

    def node_operator(self) -> str:
        return str(self._state.node.op_type) if self._state.node else ""

    def file(self) -> str:
        return "/_src/externalSources/parsers/onnx/ModelImporter.cpp"

    def line(self) -> int:
        return 1037

    def func(self) -> str:
        return "parse"

    def code(self) -> Any:
        code = self._world.module.ErrorCode
        return code.UNSUPPORTED_NODE


def nodes_of(graph: Any) -> Iterator[Any]:
    """Those in branches and loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)


def _too_new(model: Any, newest: int) -> Iterator[tuple[str, int, Any]]:
    """What came into ONNX after ``newest``: the first use of each such operator, and scales in float16."""
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    halves = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    told: set[str] = set()
    for index, node in enumerate(nodes_of(model.graph)):
        since = onnx.defs.get_schema(node.op_type, opset).since_version if onnx.defs.has(node.op_type, opset) else 0
        if since > newest and node.op_type not in told:
            told.add(node.op_type)
            since_when = f" of operator set {since}" if onnx.defs.has(node.op_type, newest) else ""
            yield f"No importer registered for op: {node.op_type}{since_when}", index, node
        elif node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in halves:
            yield f"{node.op_type} with a scale in float16 is not supported", index, node


def size_inputs(model: Any) -> set[str]:
    """Graph inputs whose values become sizes."""
    makers = {output: node for node in model.graph.node for output in node.output}
    found: set[str] = set()
    open_names = [
        name
        for node in model.graph.node
        for position, name in enumerate(node.input)
        if (node.op_type, position) in SIZES
    ]
    seen: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in makers:
            found.add(name)
        elif makers[name].op_type in PASSING:
            open_names.extend(makers[name].input)
    return found & {value.name for value in model.graph.input}


def tensor_of(value: Any, version: str) -> Tensor:
    """What an engine says of an input or output of the graph; before 10 there is no int64."""
    kind = value.type.tensor_type
    dtype = TYPES[kind.elem_type]
    if version == "8.6" and dtype == "INT64":
        dtype = "INT32"
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim]
    words = [size.dim_param for size in kind.shape.dim]
    return Tensor(value.name, dtype, sizes, words)


def _refusal(world: Any, network: Any, config: Any) -> str:
    """What keeps an engine from being built."""
    unknown = "Error Code 4: API Usage Error ({})"
    if network._state.typed and config._state.flags & {"FP16", "INT8", "BF16", "FP8", "INT4", "FP4"}:
        return unknown.format("Precision flags are not allowed in a strongly typed network")
    varying = [tensor for tensor in _inputs(world, network) if -1 in tensor.shape]
    if varying and not config._state.profiles:
        return unknown.format("Network has dynamic or shape inputs, but no optimization profile has been defined.")
    for index, profile in enumerate(config._state.profiles):
        for tensor in varying:
            if tensor.name not in profile:
                return unknown.format(
                    f"input {tensor.name} has no dimensions specified in optimization profile {index}"
                )
            for shape in profile[tensor.name]:
                if len(shape) != len(tensor.shape) or any(
                    asked not in (-1, size) for size, asked in zip(shape, tensor.shape, strict=True)
                ):
                    return unknown.format(f"profile {index} gives {tensor.name} the shape {shape}, not {tensor.shape}")
        if unused := profile.keys() - {tensor.name for tensor in _inputs(world, network)}:
            return unknown.format(f"profile {index} names {sorted(unused)[0]}, which is no input")
    if sized := size_inputs(network._state.model):
        return unknown.format(f"input {sorted(sized)[0]} is a shape tensor without values in the profile")
    return ""


def _inputs(world: Any, network: Any) -> list[Tensor]:
    return [tensor_of(value, world.settings.version) for value in network._inputs()]


def _plan(world: Any, network: Any, config: Any) -> Plan:
    settings, graph = world.settings, network._state.model.graph
    inputs = _inputs(world, network)
    names = {tensor.name for tensor in inputs}
    scatters = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "TensorScatter"}
    outputs = [tensor_of(value, settings.version) for value in graph.output]
    if settings.vague:
        outputs = [
            tensor._replace(shape=[-1] * len(tensor.shape), words=[""] * len(tensor.shape)) for tensor in outputs
        ]
    aliases = {out.name: scatters[out.name] for out in graph.output if scatters.get(out.name) in names}
    return Plan(
        version=settings.version,
        compute_capability=settings.compute_capability,
        inputs=inputs,
        outputs=outputs,
        profiles=config._state.profiles or [{}],
        aliases=aliases if world.has("ICudaEngine", "get_aliased_input_tensor") else {},
        shares_profiles=settings.version != "8.6" or "PROFILE_SHARING_0806" in config._state.features,
        flags=sorted(config._state.flags),
        typed=network._state.typed,
        pools=config._state.pools,
        level=config._state.level,
    )


def _report(monitor: Any) -> bool:
    """Two phases, one in the other; false if the monitor wants the build to end."""
    if monitor is None:
        return True
    monitor.phase_start("Building Engine", None, 2)
    monitor.phase_start("Timing graph nodes", "Building Engine", 4)
    going = all(monitor.step_complete("Timing graph nodes", step) for step in range(4))
    monitor.phase_finish("Timing graph nodes")
    going = going and all(monitor.step_complete("Building Engine", step) for step in range(2))
    monitor.phase_finish("Building Engine")
    return going


ACTS = {
    kind.__name__: kind
    for kind in (
        ILogger,
        Logger,
        IProgressMonitor,
        Builder,
        INetworkDefinition,
        ITensor,
        IOptimizationProfile,
        IBuilderConfig,
        ITimingCache,
        IHostMemory,
        OnnxParser,
        ParserError,
    )
}
