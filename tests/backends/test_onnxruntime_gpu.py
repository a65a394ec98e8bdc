"""ONNX Runtime on a GPU, behind a double of its library: the real one on the CPU that says it has a GPU.

What it is told to put on the GPU it notes, and keeps in the host's memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as library
import pytest
from onnx import TensorProto, helper

from mmedge.backends import onnxruntime_gpu
from mmedge.backends.onnxruntime_gpu import OnnxRuntimeGpu
from mmedge.core.ports import Tensors
from mmedge.errors import BackendError

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"


class Binding:
    def __init__(self, binding, placed: list[str]) -> None:
        self._binding, self._placed = binding, placed

    def bind_output(self, name: str, device: str = "cpu") -> None:
        if device != "cpu":
            self._placed.append(name)
        self._binding.bind_output(name)

    def __getattr__(self, name: str):
        return getattr(self._binding, name)


class Session:
    def __init__(self, double: Double, model, settings, providers: list[str]) -> None:
        self._double = double
        self._session = library.InferenceSession(model, settings, providers=[CPU])
        self._used = [name for name in providers if name in double.loads or name == CPU]

    def get_providers(self) -> list[str]:
        return self._used

    def io_binding(self) -> Binding:
        return Binding(self._session.io_binding(), self._double.placed)

    def run_with_iobinding(self, binding: Binding) -> None:
        self._session.run_with_iobinding(binding._binding)

    def run(self, names, feeds):
        if self._double.failure:
            raise RuntimeError(self._double.failure)
        return [each + self._double.error for each in self._session.run(names, feeds)]

    def __getattr__(self, name: str):
        return getattr(self._session, name)


class Double:
    """``offers`` is what the build says it has, ``loads`` what of that really opens."""

    def __init__(self, offers=(CUDA, CPU), loads=(CUDA,), failure="", error=0.0) -> None:
        self.offers, self.loads, self.failure, self.error = offers, loads, failure, error
        self.placed: list[str] = []
        self.OrtValue = SimpleNamespace(ortvalue_from_numpy=self._value, ortvalue_from_shape_and_type=self._empty)

    def get_available_providers(self) -> list[str]:
        return [*self.offers]

    def InferenceSession(self, model, settings, providers) -> Session:
        return Session(self, model, settings, providers)

    def _value(self, tensor, device="cpu"):
        self.placed += ["a tensor"] if device == "cuda" else []
        return library.OrtValue.ortvalue_from_numpy(tensor)

    def _empty(self, shape, dtype, device="cpu"):
        self.placed += ["an empty tensor"] if device == "cuda" else []
        return library.OrtValue.ortvalue_from_shape_and_type(shape, dtype)

    def __getattr__(self, name: str):
        return getattr(library, name)


@pytest.fixture
def with_library(monkeypatch) -> Iterator:
    def use(**behaviour) -> Double:
        double = Double(**behaviour)
        for name in ("mmedge.backends.onnxruntime", "mmedge.backends.onnxruntime_gpu"):
            monkeypatch.setattr(sys.modules[name], "_library", lambda: double)
        return double

    onnxruntime_gpu._try.cache_clear()
    yield use
    onnxruntime_gpu._try.cache_clear()


@pytest.fixture
def decoder(sources, decoder_graph):
    return lambda: OnnxRuntimeGpu().open(decoder_graph, sources["decoder"])


def step(session, position: int, *tokens: int) -> Tensors:
    positions = np.arange(position, position + len(tokens))[None]
    return session.run({"input_ids": np.array([tokens]), "position_ids": positions})


def test_a_build_for_the_cpu_only_is_refused(with_library):
    with_library(offers=(CPU,))
    with pytest.raises(BackendError, match="is a build for the CPU only") as refused:
        OnnxRuntimeGpu().version()
    assert "onnxruntime-gpu of the index" in refused.value.hint


def test_a_provider_whose_libraries_do_not_load_is_refused(with_library):
    with_library(loads=())
    with pytest.raises(BackendError, match="its libraries do not load"):
        OnnxRuntimeGpu().version()


def test_a_build_without_kernels_for_the_gpu_is_refused_at_its_first_run(with_library):
    with_library(failure="CUDA error 209: no kernel image is available for execution on the device")
    with pytest.raises(BackendError, match="no kernel image is available"):
        OnnxRuntimeGpu().version()


def test_a_gpu_that_computes_wrongly_is_refused(with_library):
    with_library(error=1e-3)
    with pytest.raises(BackendError, match="computes wrongly"):
        OnnxRuntimeGpu().version()


def test_cuda_goes_before_tensorrt(with_library):
    with_library(offers=(TENSORRT, CUDA, CPU), loads=(TENSORRT, CUDA))
    assert OnnxRuntimeGpu().version() == f"{library.__version__} (CUDA)"


def test_tensorrt_is_used_where_there_is_no_cuda(with_library):
    with_library(offers=(TENSORRT, CPU), loads=(TENSORRT,))
    assert OnnxRuntimeGpu().version() == f"{library.__version__} (Tensorrt)"


def test_a_graph_that_is_opened_without_the_gpu_is_refused(with_library, decoder):
    double = with_library()
    OnnxRuntimeGpu().version()
    double.loads = ()
    with pytest.raises(BackendError, match="opened `decoder` without it"):
        decoder()


def test_cache_and_held_tensors_stay_on_the_gpu(with_library, decoder, held):
    double = with_library()
    session, tensors = decoder(), held()
    double.placed.clear()
    session.reset(tensors)
    ports = session._graph.cache.past()
    assert double.placed == ["a tensor"] * len(tensors) + ["an empty tensor"] * len(ports)
    double.placed.clear()
    step(session, 0, 1)
    assert double.placed == [port.name for port in session._graph.cache.present()]


def test_it_answers_as_the_cpu_does(with_library, decoder, held, tiny):
    with_library()
    session, tensors = decoder(), held()
    session.reset(tensors)
    step(session, 0, 1, 2)
    np.testing.assert_allclose(step(session, 2, 3)["logits"], tiny.logits([1, 2, 3], tensors), atol=1e-5)


def test_the_trial_model_is_what_the_onnx_package_writes():
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "square", [x], [y])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    assert onnx.load_from_string(onnxruntime_gpu._SQUARE) == model
