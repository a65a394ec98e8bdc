"""A double of the CUDA runtime library: the functions by their C conventions, on the memory of the host.

Work put into a stream is done when the stream is synchronized, not before: who reads too early reads garbage. Fresh
memory is garbage too (NaN in every floating type). What would be undefined on a device raises `Misuse`.
"""

from __future__ import annotations

import ctypes
import itertools
from collections import Counter
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass, field

import numpy as np

OK, INVALID_VALUE, OUT_OF_MEMORY, INSUFFICIENT_DRIVER, NO_DEVICE = 0, 1, 2, 35, 100
INVALID_HANDLE, ILLEGAL_ADDRESS, CAPTURING, CAPTURE_INVALIDATED = 400, 700, 900, 901
TEXTS = {
    OK: b"no error",
    INVALID_VALUE: b"invalid argument",
    OUT_OF_MEMORY: b"out of memory",
    INSUFFICIENT_DRIVER: b"CUDA driver version is insufficient for CUDA runtime version",
    NO_DEVICE: b"no CUDA-capable device is detected",
    INVALID_HANDLE: b"invalid resource handle",
    ILLEGAL_ADDRESS: b"an illegal memory access was encountered",
    CAPTURING: b"operation not permitted when stream is capturing",
    CAPTURE_INVALIDATED: b"operation failed due to a previous error during capture",
}
KINDS = {1: "to_device", 2: "to_host", 3: "on_device"}
ALIGNMENT = 256

_HANDLE, _NEW = c_void_p, POINTER(c_void_p)
SIGNATURES = {
    "cudaGetDeviceCount": (POINTER(c_int),),
    "cudaDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cudaMemGetInfo": (POINTER(c_size_t), POINTER(c_size_t)),
    "cudaGetLastError": (),
    "cudaGetErrorString": (c_int,),
    "cudaMalloc": (_NEW, c_size_t),
    "cudaFree": (c_void_p,),
    "cudaMallocHost": (_NEW, c_size_t),
    "cudaFreeHost": (c_void_p,),
    "cudaMemcpyAsync": (c_void_p, c_void_p, c_size_t, c_int, _HANDLE),
    "cudaMemsetAsync": (c_void_p, c_int, c_size_t, _HANDLE),
    "cudaStreamCreateWithFlags": (_NEW, c_uint),
    "cudaStreamSynchronize": (_HANDLE,),
    "cudaStreamDestroy": (_HANDLE,),
    "cudaStreamBeginCapture": (_HANDLE, c_int),
    "cudaStreamEndCapture": (_HANDLE, _NEW),
    "cudaGraphInstantiateWithFlags": (_NEW, _HANDLE, c_ulonglong),
    "cudaGraphLaunch": (_HANDLE, _HANDLE),
    "cudaGraphDestroy": (_HANDLE,),
    "cudaGraphExecDestroy": (_HANDLE,),
}
"""As `cuda_runtime_api.h` of CUDA 11.8, 12.9 and 13.5 declares them (the same in all three)."""


class Misuse(AssertionError):
    """What would be undefined behaviour on a device."""


@dataclass
class Block:
    """Allocated memory; freed memory is kept, so that its use is noticed instead of crashing."""

    address: int
    size: int
    kind: str
    memory: np.ndarray
    freed: bool = False


@dataclass
class Stream:
    """Work that waits, or is being captured."""

    waiting: list[Callable[[], None]] = field(default_factory=list)
    captured: list[Callable[[], None]] | None = None
    invalid: bool = False


class Cudart:
    """The library, as `ctypes.CDLL` would give it."""

    def __init__(self, compute_capability: str = "8.7", memory_mb: int = 8192, devices: int = 1) -> None:
        self.compute_capability = compute_capability
        self.total = memory_mb << 20
        self.device_count = devices
        self.used = 0
        self.blocks: dict[int, Block] = {}
        self.streams: dict[int, Stream] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.copies: list[tuple[str, int, int, int]] = []
        """Direction, target, source and size of every copy that was done."""
        self.calls: Counter[str] = Counter()
        self._handles = itertools.count(0x1000, 0x10)
        self._last = OK
        self._broken = OK
        self._functions = {name: Function(self, name) for name in SIGNATURES}

    def __getattr__(self, name: str) -> Function:
        if name.startswith("_") or name not in self._functions:
            raise AttributeError(f"the double of libcudart has no symbol {name}")
        return self._functions[name]

    def live(self) -> dict[str, int]:
        """What was not given back."""
        kept = [block for block in self.blocks.values() if not block.freed]
        return {
            "blocks": len(kept),
            "streams": len(self.streams),
            "graphs": len(self.graphs),
            "executables": len(self.executables),
        }

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """For engines: put work into a stream."""
        found = self.stream(stream)
        (found.waiting if found.captured is None else found.captured).append(work)

    def stream(self, handle: int) -> Stream:
        if handle not in self.streams:
            raise Misuse(f"{handle:#x} is no stream, or was destroyed")
        return self.streams[handle]

    def array(self, address: int, size: int, kind: str = "device") -> np.ndarray:
        """``size`` bytes of an allocation that must still be there."""
        for block in self.blocks.values():
            if block.address <= address < block.address + max(block.size, 1):
                if block.freed:
                    raise Misuse(f"memory at {address:#x} is used after it was freed")
                if block.kind != kind:
                    raise Misuse(f"memory at {address:#x} is of the {block.kind}, not of the {kind}")
                start = address - block.address
                if start + size > block.size:
                    raise Misuse(f"{size} bytes from {start} on are outside a block of {block.size}")
                return block.memory[start : start + size]
        raise Misuse(f"memory at {address:#x} was never allocated")

    def take(self, size: int) -> bool:
        """Count memory that an engine holds; false if there is no room."""
        if self.used + size > self.total:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        self.used -= size

    def invalidate_captures(self) -> bool:
        """What is forbidden while something is captured spoils it."""
        capturing = [stream for stream in self.streams.values() if stream.captured is not None]
        for stream in capturing:
            stream.invalid = True
        return bool(capturing)

    def _cudaGetDeviceCount(self, count: c_int) -> int:
        count.value = self.device_count
        return OK if self.device_count else NO_DEVICE

    def _cudaDeviceGetAttribute(self, value: c_int, attribute: int, device: int) -> int:
        if attribute not in (75, 76) or device != 0:
            return INVALID_VALUE
        value.value = int(self.compute_capability.split(".")[attribute - 75])
        return OK

    def _cudaMemGetInfo(self, free: c_size_t, total: c_size_t) -> int:
        free.value, total.value = self.total - self.used, self.total
        return OK

    def _cudaGetLastError(self) -> int:
        last, self._last = self._last, OK
        return last

    def _cudaGetErrorString(self, error: int) -> bytes:
        return TEXTS.get(error, b"unrecognized error code")

    def _cudaMalloc(self, address: c_void_p, size: int) -> int:
        if self.invalidate_captures():
            return CAPTURING
        if not self.take(size):
            return OUT_OF_MEMORY
        return self._allocate(address, size, "device")

    def _cudaMallocHost(self, address: c_void_p, size: int) -> int:
        if self.invalidate_captures():
            return CAPTURING
        return self._allocate(address, size, "host")

    def _allocate(self, address: c_void_p, size: int, kind: str) -> int:
        if not size:
            raise Misuse("nothing is allocated")
        memory = np.full(size + ALIGNMENT, 0xFF, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        block = Block(memory.ctypes.data + start, size, kind, memory[start : start + size])
        self.blocks[block.address] = block
        address.value = block.address
        return OK

    def _cudaFree(self, address: int) -> int:
        code = self._free(address, "device")
        if code == OK and address:
            self.give(self.blocks[address].size)
        return code

    def _cudaFreeHost(self, address: int) -> int:
        return self._free(address, "host")

    def _free(self, address: int, kind: str) -> int:
        if not address:
            return OK
        block = self.blocks.get(address)
        if block is None or block.kind != kind:
            return INVALID_VALUE
        if block.freed:
            raise Misuse(f"memory at {address:#x} is freed twice")
        if any(stream.waiting for stream in self.streams.values()):
            for handle in list(self.streams):
                self._drain(self.streams[handle])  # cudaFree waits for the device
        block.freed = True
        return OK

    def _cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> int:
        if kind not in KINDS:
            return INVALID_VALUE
        name = KINDS[kind]

        def copy() -> None:
            into = self.array(target, size) if kind != 2 else self._host(target, size)
            into[:] = self.array(source, size) if kind != 1 else self._host(source, size)
            self.copies.append((name, target, source, size))

        self.enqueue(stream, copy)
        return OK

    def _host(self, address: int, size: int) -> np.ndarray:
        """Memory of the host: pinned by this library, or anything that Python holds."""
        for block in self.blocks.values():
            if block.address <= address < block.address + block.size:
                return self.array(address, size, "host")
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def _cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> int:
        self.enqueue(stream, lambda: self.array(address, size).fill(value))
        return OK

    def _cudaStreamCreateWithFlags(self, stream: c_void_p, flags: int) -> int:
        if flags not in (0, 1):
            return INVALID_VALUE
        stream.value = next(self._handles)
        self.streams[stream.value] = Stream()
        return OK

    def _cudaStreamSynchronize(self, handle: int) -> int:
        stream = self.stream(handle)
        if stream.captured is not None:
            stream.invalid = True
            return CAPTURING
        self._drain(stream)
        return self._broken

    def _drain(self, stream: Stream) -> None:
        waiting, stream.waiting = stream.waiting, []
        for work in waiting:
            if self._broken == OK:
                work()

    def fault(self) -> None:
        """A kernel read where nothing is: no call succeeds any more."""
        self._broken = ILLEGAL_ADDRESS

    def _cudaStreamDestroy(self, handle: int) -> int:
        self._drain(self.stream(handle))
        del self.streams[handle]
        return OK

    def _cudaStreamBeginCapture(self, handle: int, mode: int) -> int:
        stream = self.stream(handle)
        if mode not in (0, 1, 2) or stream.captured is not None:
            return INVALID_VALUE
        stream.captured, stream.invalid = [], False
        return OK

    def _cudaStreamEndCapture(self, handle: int, graph: c_void_p) -> int:
        stream = self.stream(handle)
        if stream.captured is None:
            return INVALID_VALUE
        captured, stream.captured = stream.captured, None
        graph.value = None
        if stream.invalid:
            return CAPTURE_INVALIDATED
        graph.value = next(self._handles)
        self.graphs[graph.value] = captured
        return OK

    def _cudaGraphInstantiateWithFlags(self, executable: c_void_p, graph: int, flags: int) -> int:
        if graph not in self.graphs or flags:
            return INVALID_VALUE
        executable.value = next(self._handles)
        self.executables[executable.value] = list(self.graphs[graph])
        return OK

    def _cudaGraphLaunch(self, executable: int, stream: int) -> int:
        if executable not in self.executables:
            raise Misuse(f"{executable:#x} is no instantiated graph, or was destroyed")
        for work in self.executables[executable]:
            self.enqueue(stream, work)
        return OK

    def _cudaGraphDestroy(self, graph: int) -> int:
        return OK if self.graphs.pop(graph, None) is not None else INVALID_VALUE

    def _cudaGraphExecDestroy(self, executable: int) -> int:
        return OK if self.executables.pop(executable, None) is not None else INVALID_VALUE


class Function:
    """A symbol of the library: it refuses to be called before its types were declared as in C."""

    def __init__(self, library: Cudart, name: str) -> None:
        self.argtypes: tuple[type, ...] | None = None
        self.restype: type = c_int
        self._library = library
        self._name = name

    def __call__(self, *arguments: object) -> object:
        returns = c_char_p if self._name == "cudaGetErrorString" else c_int
        if self.argtypes is None or tuple(self.argtypes) != SIGNATURES[self._name] or self.restype is not returns:
            raise Misuse(f"{self._name} is not declared as in C: ctypes would cut its addresses")
        if len(arguments) != len(self.argtypes):
            raise Misuse(f"{self._name} takes {len(self.argtypes)} arguments, not {len(arguments)}")
        values = [_value(kind, given) for kind, given in zip(self.argtypes, arguments, strict=True)]
        self._library.calls[self._name] += 1
        code = getattr(self._library, f"_{self._name}")(*values)
        if self.restype is c_int and self._name != "cudaGetLastError" and code != OK:
            self._library._last = code
        return code


def _value(kind: type, given: object) -> object:
    """What C would receive."""
    if kind in (_NEW, POINTER(c_int), POINTER(c_size_t)):
        kind.from_param(given)  # type: ignore[attr-defined]
        return getattr(given, "_obj", given)  # ctypes takes the thing itself, too
    if isinstance(given, kind):
        given = given.value  # type: ignore[attr-defined]
    if given is None and kind is c_void_p:
        return 0
    number = given.__index__()  # type: ignore[attr-defined]
    if kind(number).value != (number or (None if kind is c_void_p else 0)):  # type: ignore[attr-defined]
        raise Misuse(f"{number} does not fit into {kind.__name__}")
    return number
