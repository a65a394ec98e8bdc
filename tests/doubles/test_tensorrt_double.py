"""The double of TensorRT has what each version has, and notices what a device would not forgive."""

import enum
import gc
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from mmedge_doubles.api import MISSED, NESTED, TABLE_OF
from mmedge_doubles.cudart import Misuse
from mmedge_doubles.install import environment, installed
from mmedge_doubles.run import SCRATCH
from mmedge_doubles.settings import VERSIONS
from onnx import helper

TABLE = json.loads(files("mmedge").joinpath("targets/data/tensorrt_python_api.json").read_text())["classes"]

# Class, member, first and last version that has it: of those that the code of mmedge or of others might lean on.
LIVES = [
    ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH", "8.6", "10.16"),
    ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED", "10.3", "11.1"),
    ("BuilderFlag", "FP16", "8.6", "10.16"),
    ("BuilderFlag", "INT8", "8.6", "10.16"),
    ("BuilderFlag", "BF16", "10.3", "10.16"),
    ("BuilderFlag", "FP4", "10.13", "10.16"),
    ("BuilderFlag", "TF32", "8.6", "11.1"),
    ("BuilderFlag", "STRICT_TYPES", "8.6", "8.6"),
    ("Builder", "build_engine", "8.6", "8.6"),
    ("Builder", "build_serialized_network", "8.6", "11.1"),
    ("Builder", "platform_has_fast_fp16", "8.6", "10.16"),
    ("IBuilderConfig", "max_workspace_size", "8.6", "8.6"),
    ("IBuilderConfig", "set_memory_pool_limit", "8.6", "11.1"),
    ("IBuilderConfig", "int8_calibrator", "8.6", "10.16"),
    ("IBuilderConfig", "progress_monitor", "10.3", "11.1"),
    ("IProgressMonitor", "step_complete", "10.3", "11.1"),
    ("DataType", "INT64", "10.3", "11.1"),
    ("DataType", "FP4", "10.13", "11.1"),
    ("ParserError", "node_name", "10.3", "11.1"),
    ("PreviewFeature", "PROFILE_SHARING_0806", "8.6", "10.16"),
    ("ExecutionContextAllocationStrategy", "ON_PROFILE_CHANGE", "10.3", "11.1"),
    ("ICudaEngine", "num_bindings", "8.6", "8.6"),
    ("ICudaEngine", "get_aliased_input_tensor", "10.16", "11.1"),
    ("ICudaEngine", "device_memory_size", "8.6", "10.16"),
    ("IExecutionContext", "execute_async_v2", "8.6", "8.6"),
    ("IExecutionContext", "execute_async_v3", "8.6", "11.1"),
    ("IExecutionContext", "set_optimization_profile_async", "8.6", "11.1"),
]


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture
def double(version):
    with installed(version) as made:
        yield made


@pytest.fixture
def one():
    with installed("10.3") as made:
        yield made


@pytest.fixture
def small(tmp_path):
    """A file: y is the Relu of x, [1, width]."""
    return write(tmp_path / "small.onnx", (1, "width"))


def write(path, shape, kind="Relu", opset=20, *constants):
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy"]
    tensors = [onnx.numpy_helper.from_array(constant, f"c{index}") for index, constant in enumerate(constants)]
    nodes = [helper.make_node(kind, ["x", *(tensor.name for tensor in tensors)], ["y"])]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], tensors)
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)]), path)
    return path


class Work:
    """The calls of a build, one by one."""

    def __init__(self, double, source=None, flags=None):
        self.trt = trt = double.tensorrt

        class Log(trt.ILogger):
            def __init__(self):
                trt.ILogger.__init__(self)
                self.said = []

            def log(self, severity, msg):
                self.said.append((severity, msg))

        self.double, self.log = double, Log()
        self.builder = trt.Builder(self.log)
        known = trt.NetworkDefinitionCreationFlag
        flag = known.STRONGLY_TYPED if hasattr(known, "STRONGLY_TYPED") else known.EXPLICIT_BATCH
        self.network = self.builder.create_network(1 << int(flag) if flags is None else flags)
        self.parser = trt.OnnxParser(self.network, self.log)
        self.parsed = source and self.parser.parse_from_file(str(source))
        self.config = self.builder.create_builder_config()

    def profile(self, smallest=1, usual=2, largest=4):
        made = self.builder.create_optimization_profile()
        made.set_shape("x", (1, smallest), (1, usual), (1, largest))
        return self.config.add_optimization_profile(made)

    def plan(self):
        return self.builder.build_serialized_network(self.network, self.config)

    def engine(self, profiles=1):
        for _ in range(profiles):
            self.profile()
        return self.trt.Runtime(self.log).deserialize_cuda_engine(self.plan())

    def last(self):
        return self.log.said[-1][1]


class Device:
    """The calls of a run, one by one, with the types declared."""

    def __init__(self, double):
        from mmedge.backends._cuda import Cuda

        self.cuda = Cuda(double.cudart)
        self.stream = self.cuda.new_stream()
        self.x, self.y = (self.cuda.allocate(16) for _ in range(2))

    def ready(self, engine, width=2, make=None):
        context = (make or engine.create_execution_context)()
        assert context.set_input_shape("x", (1, width))
        assert context.set_tensor_address("x", self.x) and context.set_tensor_address("y", self.y)
        return context

    def run(self, context, values):
        given, got = np.float32(values), np.zeros(len(values), np.float32)
        self.cuda.to_device(self.x, given.ctypes.data, given.nbytes, self.stream)
        assert context.execute_async_v3(self.stream)
        self.cuda.to_host(got.ctypes.data, self.y, got.nbytes, self.stream)
        self.cuda.synchronize(self.stream)
        return got.tolist()


def members_of(entry):
    return {name for name in dir(entry) if not name.startswith("_")}


def expected_members(name, version):
    """By the table, but for what it misses."""
    listed = {member for member, entry in TABLE[name].items() if TABLE_OF[version] in entry["versions"]}
    listed = (listed | MISSED.get(name, set())) - ({"log"} if name == "Severity" else set())
    return {member for member in listed if not member.startswith("_")} if listed else None


class TestMembers:
    def test_every_class_has_those_of_its_version_and_no_others(self, double, version):
        module, compared = double.tensorrt, 0
        for name in TABLE.keys() - {"<module>", "IHostMemory"}:
            outer = getattr(module, NESTED[name]) if name in NESTED else module
            found, expected = getattr(outer, name, None), expected_members(name, version)
            assert (found is None) == (expected is None), name
            if found is not None:
                extra = {"name", "value"} if isinstance(found, enum.EnumMeta) else set()
                if name in ("ILogger", "Logger"):
                    extra = {"Severity", "log", *(entry.name for entry in module.ILogger.Severity)}
                assert members_of(found) - extra == expected - extra, name
                compared += len(expected)
        assert compared > 700

    def test_what_was_added_and_removed(self, double, version):
        for name, member, first, last in LIVES:
            lives = VERSIONS.index(first) <= VERSIONS.index(version) <= VERSIONS.index(last)
            assert hasattr(getattr(double.tensorrt, name, None), member) is lives, (name, member)

    def test_the_version_is_told(self, double, version):
        assert double.tensorrt.__version__.startswith(f"{version}.")

    @pytest.mark.parametrize("name", ["Bilder", "nptype", "volume", "float32"])
    def test_the_module_has_nothing_else(self, name, double):
        with pytest.raises(AttributeError):
            getattr(double.tensorrt, name)

    def test_objects_have_nothing_else_and_take_nothing_else(self, double):
        work = Work(double)
        for thing in (work.builder, work.network, work.parser, work.config):
            with pytest.raises(AttributeError):
                thing.anything  # noqa: B018
            with pytest.raises(AttributeError):
                thing.anything = 1

    def test_bytes_of_an_engine_are_bytes_and_nothing_more(self, one, small):
        work = Work(one, small)
        work.profile()
        plan = work.plan()
        assert plan.nbytes == len(memoryview(plan)) == len(bytes(plan))
        for name in ("decode", "split", "hex"):
            with pytest.raises(AttributeError):
                getattr(plan, name)

    def test_what_is_not_acted_out_says_so(self, double):
        with pytest.raises(NotImplementedError, match="`is_network_supported`"):
            Work(double).builder.is_network_supported(None, None)

    @pytest.mark.parametrize("name", ["ICudaEngine", "IExecutionContext", "IBuilderConfig", "INetworkDefinition"])
    def test_what_only_the_library_makes_cannot_be_made(self, name, double):
        with pytest.raises(TypeError, match="No constructor defined"):
            getattr(double.tensorrt, name)()


class TestArguments:
    @pytest.mark.parametrize(
        "call",
        [
            lambda work: work.trt.Builder(None),
            lambda work: work.trt.Builder(),
            lambda work: work.builder.create_network(work.trt.BuilderFlag),
            lambda work: work.parser.parse_from_file(Path("x")),
            lambda work: work.config.set_flag(4),
            lambda work: work.config.set_flag(work.trt.MemoryPoolType.WORKSPACE),
            lambda work: work.config.set_memory_pool_limit(work.trt.MemoryPoolType.WORKSPACE, 1.5),
            lambda work: work.config.set_memory_pool_limit(work.trt.MemoryPoolType.WORKSPACE, -1),
            lambda work: work.config.create_timing_cache("text"),
            lambda work: work.config.add_optimization_profile(None),
            lambda work: work.builder.build_serialized_network(work.config, work.network),
            lambda work: work.builder.create_optimization_profile().set_shape("x", 1, 2, 3),
            lambda work: work.builder.create_optimization_profile().set_shape("x", (1,), (1,)),
        ],
    )
    def test_of_the_wrong_type_are_refused(self, call, double):
        with pytest.raises(TypeError):
            call(Work(double))

    def test_an_interface_whose_constructor_was_not_called_is_refused(self, double):
        class Log(double.tensorrt.ILogger):
            def __init__(self):
                pass

        with pytest.raises(TypeError, match="must be called"):
            double.tensorrt.Builder(Log())


class TestBuilding:
    def test_a_network_without_a_graph_is_none(self, double):
        work = Work(double)
        assert work.plan() is None and "at least one output" in work.last()

    def test_sizes_without_a_profile_are_none(self, double, small):
        work = Work(double, small)
        assert work.plan() is None and "no optimization profile has been defined" in work.last()

    @pytest.mark.parametrize(("shape", "told"), [((1, 2, 3), "not \\[1, -1\\]"), ((2, 2), "not \\[1, -1\\]")])
    def test_a_profile_of_another_shape_is_none(self, shape, told, double, small):
        work = Work(double, small)
        made = work.builder.create_optimization_profile()
        made.set_shape("x", shape, shape, shape)
        work.config.add_optimization_profile(made)
        assert work.plan() is None and "the shape" in work.last()

    def test_a_profile_of_an_input_that_is_none(self, double, small):
        work = Work(double, small)
        made = work.builder.create_optimization_profile()
        for name in ("x", "z"):
            made.set_shape(name, (1, 1), (1, 1), (1, 1))
        work.config.add_optimization_profile(made)
        assert work.plan() is None and "z, which is no input" in work.last()

    def test_a_profile_that_says_nothing_is_not_added(self, double):
        work = Work(double)
        assert work.config.add_optimization_profile(work.builder.create_optimization_profile()) == -1

    def test_the_batch_must_be_explicit_where_it_can_be_something_else(self, double, small, version):
        work = Work(double, small, flags=0)
        assert work.parsed is (version != "8.6")

    @pytest.mark.parametrize("number", ["10.3", "10.13", "10.16"])
    def test_a_typed_network_takes_no_precision(self, number, small):
        with installed(number) as double:
            work = Work(double, small)
            work.profile()
            work.config.set_flag(work.trt.BuilderFlag.FP16)
            assert work.plan() is None and "strongly typed" in work.last()

    def test_a_parser_that_is_gone_took_the_weights_with_it(self, double, small):
        work = Work(double, small)
        work.profile()
        work.parser = None
        gc.collect()
        with pytest.raises(Misuse, match="the parser"):
            work.plan()

    @pytest.mark.parametrize(("kind", "opset"), [("Gelu", 20), ("Identity", 20), ("Relu", 20), ("Identity", 17)])
    def test_the_oldest_reads_operators_as_they_were_up_to_opset_17(self, kind, opset, double, version, tmp_path):
        work = Work(double, write(tmp_path / "small.onnx", (1, 2), kind, opset))
        newer = (kind, opset) in (("Gelu", 20), ("Identity", 20))
        assert work.parsed is not (newer and version == "8.6")
        assert work.parsed or f"No importer registered for op: {kind}" in work.parser.get_error(0).desc()

    @pytest.mark.parametrize("scale", [np.float32(0.5), np.float16(0.5)])
    def test_the_oldest_has_no_scales_in_float16(self, scale, double, version, tmp_path):
        path = write(tmp_path / "small.onnx", (1, 2), "DequantizeLinear", 17, scale)
        assert Work(double, path).parsed is (version != "8.6" or scale.dtype == np.float32)

    def test_parts_of_two_builders_do_not_fit(self, double, small):
        first, second = Work(double, small), Work(double, small)
        with pytest.raises(Misuse, match="another builder"):
            first.builder.build_serialized_network(first.network, second.config)

    def test_a_monitor_can_end_a_build(self, one, small):
        class Monitor(one.tensorrt.IProgressMonitor):
            def __init__(self):
                one.tensorrt.IProgressMonitor.__init__(self)

            def phase_start(self, *told):
                pass

            phase_finish = phase_start

            def step_complete(self, phase, step):
                return False

        work = Work(one, small)
        work.profile()
        work.config.progress_monitor = Monitor()
        assert work.plan() is None and "cancelled" in work.last()


class TestRunning:
    def test_a_run_gives_what_the_graph_says(self, double, small):
        engine, device = Work(double, small).engine(), Device(double)
        assert device.run(device.ready(engine), [-1, 2]) == [0, 2]

    def test_nothing_is_done_before_the_stream_is_synchronized(self, double, small):
        engine, device = Work(double, small).engine(), Device(double)
        context = device.ready(engine)
        assert context.execute_async_v3(device.stream)
        assert double.executions == []
        device.cuda.synchronize(device.stream)
        assert double.executions == [0]

    def test_an_address_that_is_missing(self, double, small):
        work, device = Work(double, small), Device(double)
        context = work.engine().create_execution_context()
        context.set_input_shape("x", (1, 2))
        context.set_tensor_address("x", device.x)
        assert context.execute_async_v3(device.stream) is False and "Address is not set for tensor y" in work.last()

    def test_a_shape_that_is_missing(self, double, small):
        work, device = Work(double, small), Device(double)
        context = work.engine().create_execution_context()
        for name, address in (("x", device.x), ("y", device.y)):
            context.set_tensor_address(name, address)
        assert context.execute_async_v3(device.stream) is False and "the shape of x" in work.last()

    @pytest.mark.parametrize("shape", [(1, 5), (1, 0), (2, 2), (2,)])
    def test_a_shape_outside_the_profile(self, shape, double, small):
        work = Work(double, small)
        context = work.engine().create_execution_context()
        assert context.set_input_shape("x", shape) is False and "satisfyProfile" in work.last()

    def test_a_profile_that_is_not_there(self, double, small):
        work, device = Work(double, small), Device(double)
        context = work.engine().create_execution_context()
        with pytest.raises(RuntimeError, match="set optimization profile"):
            context.set_optimization_profile_async(1, device.stream)

    def test_one_profile_for_two_contexts_where_that_is_not_allowed(self, double, small, version):
        work, device = Work(double, small), Device(double)
        engine = work.engine(profiles=2)
        first, second = engine.create_execution_context(), engine.create_execution_context()
        assert first.set_optimization_profile_async(1, device.stream)
        if version != "8.6":
            assert second.set_optimization_profile_async(1, device.stream)
            return
        with pytest.raises(RuntimeError, match="set optimization profile"):
            second.set_optimization_profile_async(1, device.stream)

    def test_a_context_without_memory_of_its_own(self, double, small, version):
        engine, device = Work(double, small).engine(), Device(double)

        def bare():
            if version == "8.6":
                return engine.create_execution_context_without_device_memory()
            return engine.create_execution_context(double.tensorrt.ExecutionContextAllocationStrategy.USER_MANAGED)

        context = device.ready(engine, make=bare)
        with pytest.raises(Misuse, match="was given none"):
            context.execute_async_v3(device.stream)
        scratch = device.cuda.allocate(SCRATCH)
        if version == "8.6":
            context.device_memory = scratch
        else:
            with pytest.raises(Misuse, match="too little"):
                context.set_device_memory(scratch, SCRATCH - 1)
            context.set_device_memory(scratch, SCRATCH)
        assert device.run(context, [-1, 2]) == [0, 2]
        with pytest.raises(AttributeError):
            context.device_memory  # noqa: B018

    def test_addresses_must_be_aligned(self, double, small):
        engine, device = Work(double, small).engine(), Device(double)
        with pytest.raises(Misuse, match="not aligned"):
            engine.create_execution_context().set_tensor_address("x", device.x + 4)

    def test_outputs_must_not_lie_on_inputs(self, double, small):
        engine, device = Work(double, small).engine(), Device(double)
        context = device.ready(engine)
        context.set_tensor_address("y", device.x)
        with pytest.raises(Misuse, match="same address"):
            context.execute_async_v3(device.stream)

    def test_memory_that_is_too_small(self, double, small):
        engine, device = Work(double, small).engine(), Device(double)
        device.y = device.cuda.allocate(4)
        device.ready(engine).execute_async_v3(device.stream)
        with pytest.raises(Misuse, match="outside a block of 4"):
            device.cuda.synchronize(device.stream)

    def test_memory_that_was_freed(self, double, small):
        engine, device = Work(double, small).engine(), Device(double)
        context = device.ready(engine)
        device.cuda.free(device.x)
        context.execute_async_v3(device.stream)
        with pytest.raises(Misuse, match="used after it was freed"):
            device.cuda.synchronize(device.stream)

    def test_a_recording_needs_a_run_before(self, double, small):
        from mmedge.errors import BackendError

        work, device = Work(double, small), Device(double)
        context = device.ready(work.engine())

        def execute():
            if not context.execute_async_v3(device.stream):
                raise BackendError("refused")

        with pytest.raises(BackendError, match="refused"):
            device.cuda.record(device.stream, execute)
        execute()
        device.cuda.synchronize(device.stream)
        recording = device.cuda.record(device.stream, execute)
        context.set_tensor_address("x", device.cuda.allocate(16))  # too late for the recording
        given = np.float32([-3, 4])
        device.cuda.to_device(device.x, given.ctypes.data, 8, device.stream)
        device.cuda.launch(recording, device.stream)
        got = np.zeros(2, np.float32)
        device.cuda.to_host(got.ctypes.data, device.y, 8, device.stream)
        device.cuda.synchronize(device.stream)
        assert got.tolist() == [0, 4]


class TestChildren:
    CODE = (
        "import tensorrt; from mmedge.core import find; print(tensorrt.__version__, find.backend('tensorrt').tied_to())"
    )

    def run(self, environment):
        return subprocess.run([sys.executable, "-c", self.CODE], env=environment, capture_output=True, text=True)

    def test_find_the_doubles_too(self, version):
        done = self.run(environment(version, compute_capability="11.0"))
        assert done.stdout.startswith(f"{version}.") and "'11.0'" in done.stdout, done.stderr

    def test_find_nothing_without_the_variable(self):
        without = {name: value for name, value in environment().items() if name != "MMEDGE_DOUBLES"}
        assert "No module named 'tensorrt'" in self.run(without).stderr

    def test_find_them_while_they_are_installed_here(self):
        with installed("11.1"):
            assert self.run(None).stdout.startswith("11.1.0")


def test_nothing_stays_installed():
    with installed("10.3"):
        pass
    assert "tensorrt" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        import tensorrt  # noqa: F401
