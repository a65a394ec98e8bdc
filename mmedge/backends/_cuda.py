"""The CUDA runtime through ctypes: memory, a stream, and work that is recorded once and launched again.

No Python package is needed, only the library, which comes with CUDA. The signatures are those of `cuda_runtime_api.h`
in CUDA 11.8, 12.9 and 13.5, where they are the same; that of `cudaGraphInstantiate` is not, so its place is taken by
`cudaGraphInstantiateWithFlags`, which is there from 11.4 on. Addresses and handles are plain integers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from functools import cache
from typing import Any

import numpy as np

from mmedge.errors import BackendError, ResourceError

LIBRARIES = (
    "libcudart.so.13",
    "libcudart.so.12",
    "libcudart.so.11.0",
    "libcudart.so",
    "/usr/local/cuda/lib64/libcudart.so",
)
"""In this order; the first that finds a device is taken, as a board may have a newer one than its driver serves."""

_OUT_OF_MEMORY = 2
_MAJOR, _MINOR = 75, 76
"""Device attributes: the two parts of the compute capability."""
_NON_BLOCKING = 1
_THREAD_LOCAL = 1
"""Capture mode: what other threads do meanwhile does not spoil the recording."""
_TO_DEVICE, _TO_HOST = 1, 2
_MIB = 1 << 20

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
    "cudaGetLastError": (),
    "cudaMalloc": (POINTER(c_void_p), c_size_t),
    "cudaFree": (c_void_p,),
    "cudaMallocHost": (POINTER(c_void_p), c_size_t),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, c_void_p),
    "cudaMemsetAsync": (c_void_p, c_int, c_size_t, c_void_p),
    "cudaStreamCreateWithFlags": (POINTER(c_void_p), c_uint),
    "cudaStreamSynchronize": (c_void_p,),
    "cudaStreamDestroy": (c_void_p,),
    "cudaStreamBeginCapture": (c_void_p, c_int),
    "cudaStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cudaGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cudaGraphLaunch": (c_void_p, c_void_p),
    "cudaGraphDestroy": (c_void_p,),
    "cudaGraphExecDestroy": (c_void_p,),
}


class Cuda:
    """The functions that an engine needs; what fails is raised with CUDA's own words."""

    def __init__(self, library: Any) -> None:
        self._library = library
        for name, types in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, c_int
        library.cudaGetErrorString.argtypes, library.cudaGetErrorString.restype = (c_int,), ctypes.c_char_p

    def devices(self) -> int:
        count = c_int()
        self._call("find a device", "cudaGetDeviceCount", byref(count))
        return count.value

    def compute_capability(self) -> str:
        """Of the first device, such as ``8.7``."""
        parts = []
        for attribute in (_MAJOR, _MINOR):
            value = c_int()
            self._call("tell the compute capability", "cudaDeviceGetAttribute", byref(value), attribute, 0)
            parts.append(value.value)
        return ".".join(map(str, parts))

    def memory(self) -> tuple[int, int]:
        """Bytes of device memory that are free, and that there are."""
        free, total = c_size_t(), c_size_t()
        self._call("tell the memory", "cudaMemGetInfo", byref(free), byref(total))
        return free.value, total.value

    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes on the device; what is in them is undefined.

        Raises:
            ResourceError: there is not so much memory.
        """
        return self._new("cudaMalloc", size, "memory on the GPU")

    def free(self, address: int) -> None:
        self._call("free memory", "cudaFree", address)

    def allocate_host(self, size: int) -> int:
        """Address of ``size`` bytes of the host that stay where they are, so that the device can copy them by itself.

        Raises:
            ResourceError: there is not so much memory.
        """
        return self._new("cudaMallocHost", size, "pinned memory")

    def free_host(self, address: int) -> None:
        self._call("free pinned memory", "cudaFreeHost", address)

    def to_device(self, target: int, source: int, size: int, stream: int) -> None:
        """Enqueue a copy of ``size`` bytes; the source must stay as it is until the stream was synchronized."""
        self._call("copy to the GPU", "cudaMemcpyAsync", target, source, size, _TO_DEVICE, stream)

    def to_host(self, target: int, source: int, size: int, stream: int) -> None:
        self._call("copy from the GPU", "cudaMemcpyAsync", target, source, size, _TO_HOST, stream)

    def zero(self, address: int, size: int, stream: int) -> None:
        self._call("clear memory", "cudaMemsetAsync", address, 0, size, stream)

    def new_stream(self) -> int:
        """A queue of work of its own."""
        return self._handle("make a stream", "cudaStreamCreateWithFlags", _NON_BLOCKING)

    def synchronize(self, stream: int) -> None:
        """Wait until all that was enqueued is done, and raise what went wrong meanwhile."""
        self._call("run what was enqueued", "cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        self._call("destroy a stream", "cudaStreamDestroy", stream)

    def record(self, stream: int, enqueue: Callable[[], None]) -> int:
        """A recording of what ``enqueue`` puts into the stream, ready for `launch`; nothing of it is run yet.

        Raises:
            BackendError: something in it cannot be recorded; the stream is usable again.
        """
        self._call("begin a recording", "cudaStreamBeginCapture", stream, _THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            self._abandon(stream)
            raise
        graph = c_void_p()
        self._call("end a recording", "cudaStreamEndCapture", stream, byref(graph))
        try:
            return self._handle("ready a recording", "cudaGraphInstantiateWithFlags", graph, 0)
        finally:
            self._call("destroy a recording", "cudaGraphDestroy", graph)

    def launch(self, recording: int, stream: int) -> None:
        self._call("launch a recording", "cudaGraphLaunch", recording, stream)

    def destroy_recording(self, recording: int) -> None:
        self._call("destroy a recording", "cudaGraphExecDestroy", recording)

    def _abandon(self, stream: int) -> None:
        """End a recording that went wrong. CUDA answers with the error that is being told already, or with a graph."""
        graph = c_void_p()
        self._library.cudaStreamEndCapture(stream, byref(graph))
        if graph:
            self._library.cudaGraphDestroy(graph)
        self._library.cudaGetLastError()

    def _new(self, function: str, size: int, what: str) -> int:
        address = c_void_p()
        code = getattr(self._library, function)(byref(address), size)
        if code == _OUT_OF_MEMORY:
            self._library.cudaGetLastError()
            free, total = self.memory()
            raise ResourceError(
                f"no room for {_mib(size)} of {what}: {_mib(free)} of {_mib(total)} are free",
                hint="close other programs, or export with smaller sizes or another precision",
            )
        self._check(code, f"allocate {_mib(size)} of {what}")
        return address.value or 0

    def _handle(self, what: str, function: str, *arguments: object) -> int:
        handle = c_void_p()
        self._call(what, function, byref(handle), *arguments)
        return handle.value or 0

    def _call(self, what: str, function: str, *arguments: object) -> None:
        self._check(getattr(self._library, function)(*arguments), what)

    def _check(self, code: int, what: str) -> None:
        if code:
            text = self._library.cudaGetErrorString(code).decode()
            self._library.cudaGetLastError()  # or the next call would tell it again
            raise BackendError(f"CUDA cannot {what}: {text} (error {code})")


@cache
def cuda() -> Cuda:
    """The runtime of this machine.

    Raises:
        BackendError: there is none, or it finds no device.
    """
    refusal = BackendError(
        "the CUDA runtime (libcudart.so) was not found",
        hint="it comes with CUDA, on a Jetson with JetPack: `sudo apt install nvidia-jetpack`; "
        "if it is installed, name its folder in LD_LIBRARY_PATH",
    )
    for name in LIBRARIES:
        try:
            library = Cuda(ctypes.cdll.LoadLibrary(name))
        except OSError:
            continue
        try:
            if library.devices():
                return library
        except BackendError as error:
            refusal = error
    raise refusal


def host_bytes(address: int, size: int) -> np.ndarray:
    """Memory of the host as uint8; it is not owned."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def _mib(size: int) -> str:
    return f"{size / _MIB:,.1f} MiB"
