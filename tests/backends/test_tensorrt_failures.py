"""What TensorRT says when it fails, taken for what it means."""

import pytest
from mmedge_doubles.install import installed

from mmedge.backends._tensorrt import failure
from mmedge.errors import BackendError, ResourceError

NO_MEMORY = (
    "Error Code 2: OutOfMemory (Requested size was 536870912 bytes.)",
    "Requested amount of GPU memory (1073741824 bytes) could not be allocated. There may not be enough free memory",
    "[resizingAllocator.cpp::allocate::74] Error Code 1: Cuda Runtime (out of memory)",
    "[allocator.cpp] CUDA error 2 for 268435456-byte allocation.",
    "The weights could not be allocated",
    "Autotuning failed for insufficient memory",
    "std::bad_alloc",
)


@pytest.fixture(autouse=True)
def double():
    with installed("10.3"):
        yield


@pytest.mark.parametrize("said", NO_MEMORY)
def test_too_little_memory_is_no_reason_against_the_graph_or_the_version(said):
    error = failure("open `decoder`", [said], hint="compile the bundle again")
    assert isinstance(error, ResourceError) and said in error.message
    assert "close other programs" in error.hint and "compile" not in error.hint


def test_memory_that_is_named_after_a_page_of_other_reasons_counts_too():
    assert isinstance(failure("build `decoder`", ["x" * 700, NO_MEMORY[0]]), ResourceError)


@pytest.mark.parametrize(
    "said",
    ["CUDA error 209 for a kernel", "Could not find any implementation for node {ForeignNode[/head/MatMul]}."],
)
def test_other_reasons_stay_with_their_hint(said):
    error = failure("open `decoder`", [said], hint="compile the bundle again")
    assert isinstance(error, BackendError) and error.hint == "compile the bundle again"
