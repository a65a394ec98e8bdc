"""Which CUDA runtime is taken; what it does is in the tests of its double."""

import ctypes

import pytest
from mmedge_doubles.cudart import Cudart

from mmedge.backends import _cuda
from mmedge.errors import BackendError


@pytest.fixture
def libraries(monkeypatch):
    """``libraries(names)``: the libraries of this machine, by name."""

    def have(found):
        def load(name):
            if name not in found:
                raise OSError(f"{name}: cannot open shared object file")
            return found[name]

        monkeypatch.setattr(ctypes.cdll, "LoadLibrary", load, raising=False)
        _cuda.cuda.cache_clear()

    yield have
    _cuda.cuda.cache_clear()


@pytest.mark.parametrize("name", _cuda.LIBRARIES)
def test_the_library_is_found_under_every_name(name, libraries):
    libraries({name: Cudart("8.7")})
    assert _cuda.cuda().compute_capability() == "8.7"


def test_a_library_that_finds_no_device_is_passed_over(libraries):
    libraries({"libcudart.so.13": Cudart(devices=0), "libcudart.so.12": Cudart("8.7")})
    assert _cuda.cuda().compute_capability() == "8.7"


def test_without_a_device_cuda_says_why(libraries):
    libraries({"libcudart.so.12": Cudart(devices=0)})
    with pytest.raises(
        BackendError, match=r"CUDA cannot find a device: no CUDA-capable device is detected \(error 100\)"
    ):
        _cuda.cuda()


def test_without_a_library_the_hint_says_what_brings_it(libraries):
    libraries({})
    with pytest.raises(BackendError, match=r"the CUDA runtime \(libcudart.so\) was not found") as caught:
        _cuda.cuda()
    assert "nvidia-jetpack" in caught.value.hint


def test_a_refusal_is_not_remembered(libraries):
    libraries({})
    with pytest.raises(BackendError):
        _cuda.cuda()
    libraries({"libcudart.so": Cudart()})
    assert _cuda.cuda().devices() == 1
