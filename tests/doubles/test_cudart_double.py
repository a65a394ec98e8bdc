"""The double of the CUDA runtime notices what a device would not forgive."""

from ctypes import byref, c_int, c_size_t, c_void_p

import numpy as np
import pytest
from mmedge_doubles.cudart import CAPTURING, SIGNATURES, Cudart, Misuse

from mmedge.backends._cuda import Cuda, host_bytes
from mmedge.errors import BackendError, ResourceError


@pytest.fixture
def cudart():
    return Cudart(memory_mb=1)


@pytest.fixture
def cuda(cudart):
    return Cuda(cudart)


@pytest.fixture
def stream(cuda):
    return cuda.new_stream()


def test_it_has_the_symbols_that_are_declared_and_no_others(cudart):
    for name in SIGNATURES:
        assert callable(getattr(cudart, name))
    with pytest.raises(AttributeError, match="no symbol cudaGraphInstantiate"):
        cudart.cudaGraphInstantiate  # noqa: B018


@pytest.mark.parametrize("types", [None, (c_void_p,), (c_void_p, c_int, c_size_t), (c_int, c_size_t)])
def test_a_function_whose_types_are_not_those_of_c_is_not_called(types, cudart):
    cudart.cudaMalloc.argtypes = types
    with pytest.raises(Misuse, match="cudaMalloc is not declared as in C"):
        cudart.cudaMalloc(byref(c_void_p()), 16)


def test_numbers_that_c_would_cut_are_noticed(cuda, cudart, stream):
    with pytest.raises(Misuse, match="does not fit"):
        cudart.cudaMemsetAsync(1 << 70, 0, 4, stream)
    with pytest.raises(Misuse, match="does not fit"):
        cudart.cudaMalloc(byref(c_void_p()), -1)
    with pytest.raises(TypeError):
        cudart.cudaMalloc(16, 16)


def test_memory_goes_there_and_back(cuda, stream):
    address, given, got = cuda.allocate(64), np.arange(64, dtype=np.uint8), np.zeros(64, np.uint8)
    cuda.to_device(address, given.ctypes.data, 64, stream)
    cuda.to_host(got.ctypes.data, address, 64, stream)
    assert not got.any()
    cuda.synchronize(stream)
    np.testing.assert_array_equal(got, given)


def test_fresh_memory_is_no_number(cuda, cudart, stream):
    address = cuda.allocate(8)
    assert np.isnan(cudart.array(address, 8).view(np.float32)).all()
    assert np.isnan(cudart.array(address, 8).view(np.float16)).all()
    cuda.zero(address, 8, stream)
    cuda.synchronize(stream)
    assert not cudart.array(address, 8).any()


def test_pinned_memory_is_of_the_host(cuda, cudart, stream):
    pinned, address = cuda.allocate_host(16), cuda.allocate(16)
    host_bytes(pinned, 16)[:] = 7
    cuda.to_device(address, pinned, 16, stream)
    cuda.synchronize(stream)
    assert set(cudart.array(address, 16)) == {7}
    with pytest.raises(Misuse, match="of the host, not of the device"):
        cudart.array(pinned, 16)


class TestMisuse:
    def test_memory_used_after_it_was_freed(self, cuda, stream):
        address = cuda.allocate(16)
        cuda.free(address)
        cuda.zero(address, 16, stream)
        with pytest.raises(Misuse, match="used after it was freed"):
            cuda.synchronize(stream)

    def test_memory_freed_twice(self, cuda):
        address = cuda.allocate(16)
        cuda.free(address)
        with pytest.raises(Misuse, match="freed twice"):
            cuda.free(address)

    @pytest.mark.parametrize("kind", ["device", "host"])
    def test_memory_freed_as_another_kind(self, kind, cuda):
        address = cuda.allocate(16) if kind == "host" else cuda.allocate_host(16)
        with pytest.raises(BackendError, match="invalid argument"):
            (cuda.free if kind == "device" else cuda.free_host)(address)

    def test_more_than_was_allocated(self, cuda, stream):
        address = cuda.allocate(16)
        cuda.zero(address, 17, stream)
        with pytest.raises(Misuse, match="outside a block of 16"):
            cuda.synchronize(stream)

    def test_memory_of_nobody(self, cuda, stream):
        cuda.zero(0x1234, 4, stream)
        with pytest.raises(Misuse, match="never allocated"):
            cuda.synchronize(stream)

    def test_a_stream_that_was_destroyed(self, cuda, stream):
        cuda.destroy_stream(stream)
        with pytest.raises(Misuse, match="no stream"):
            cuda.synchronize(stream)

    def test_a_recording_that_was_destroyed(self, cuda, stream):
        recording = cuda.record(stream, lambda: None)
        cuda.destroy_recording(recording)
        with pytest.raises(Misuse, match="no instantiated graph"):
            cuda.launch(recording, stream)


def test_memory_ends(cuda, cudart):
    assert cuda.memory() == (1 << 20, 1 << 20)
    address = cuda.allocate(1 << 19)
    with pytest.raises(
        ResourceError, match=r"no room for 0\.6 MiB of memory on the GPU: 0\.5 MiB of 1\.0 MiB are free"
    ):
        cuda.allocate(600_000)
    cuda.free(address)
    assert cuda.memory()[0] == 1 << 20
    cuda.allocate(600_000)


def test_a_recording_repeats_what_was_enqueued_and_does_nothing_before(cuda, cudart, stream):
    address = cuda.allocate(4)
    recording = cuda.record(stream, lambda: cuda.zero(address, 4, stream))
    cuda.synchronize(stream)
    assert cudart.array(address, 4).all()
    for _ in range(2):
        cudart.array(address, 4).fill(9)
        cuda.launch(recording, stream)
        cuda.synchronize(stream)
        assert not cudart.array(address, 4).any()
    cuda.destroy_recording(recording)
    assert cudart.live() == {"blocks": 1, "streams": 1, "graphs": 0, "executables": 0}


@pytest.mark.parametrize("forbidden", ["allocate", "synchronize"])
def test_what_is_forbidden_while_recording_spoils_it(forbidden, cuda, cudart, stream):
    with pytest.raises(BackendError, match=rf"operation not permitted when stream is capturing \(error {CAPTURING}\)"):
        cuda.record(stream, lambda: cuda.allocate(4) if forbidden == "allocate" else cuda.synchronize(stream))
    assert cudart.streams[stream].captured is None
    assert cudart.live()["graphs"] == 0
    assert cudart.cudaGetLastError() == 0
    cuda.synchronize(stream)


def test_the_last_error_is_told_until_it_is_taken(cudart, cuda, stream):
    assert cudart.cudaMemcpyAsync(1, 2, 3, 9, stream) == 1
    assert cudart.cudaGetErrorString(1) == b"invalid argument"
    assert [cudart.cudaGetLastError() for _ in range(2)] == [1, 0]


def test_the_device_is_told(cuda):
    assert (cuda.devices(), cuda.compute_capability()) == (1, "8.7")
    assert Cuda(Cudart("11.0")).compute_capability() == "11.0"


def test_the_same_types_are_declared_as_by_the_backend():
    from mmedge.backends._cuda import _SIGNATURES

    assert {**_SIGNATURES, "cudaGetErrorString": (c_int,)} == SIGNATURES


def test_a_recording_that_is_given_up_leaves_nothing(cuda, cudart, stream):
    address = cuda.allocate(4)

    def enqueue():
        cuda.zero(address, 4, stream)
        raise BackendError("the engine refuses")

    with pytest.raises(BackendError, match="the engine refuses"):
        cuda.record(stream, enqueue)
    assert cudart.live() == {"blocks": 1, "streams": 1, "graphs": 0, "executables": 0}
    cuda.synchronize(stream)
    assert cudart.array(address, 4).all()
