"""Which wheels fit a Jetson, by their names."""

import pytest

from mmedge.errors import UsageError
from mmedge.runtime.wheels import missing, wheel_of


@pytest.mark.parametrize(
    ("file", "pythons"),
    [
        ("rich-15.0.0-py3-none-any.whl", ("3.10", "3.12")),
        ("humanfriendly-10.0-py2.py3-none-any.whl", ("3.10", "3.12")),
        ("numpy-2.2.6-cp310-cp310-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", ("3.10",)),
        ("numpy-2.4.0-cp312-cp312-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl", ("3.12",)),
        ("tokenizers-0.23.3-cp310-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", ("3.10", "3.12")),
        ("hf_xet-1.8.0-cp38-abi3-manylinux_2_28_aarch64.whl", ("3.10", "3.12")),
        ("new-1.0-cp311-abi3-manylinux_2_28_aarch64.whl", ("3.12",)),
        ("new-1.0-1-cp312-cp312-manylinux_2_39_aarch64.whl", ("3.12",)),
        ("onnxruntime_gpu-1.23.0-cp310-cp310-linux_aarch64.whl", ("3.10",)),
    ],
)
def test_a_wheel_fits_the_pythons_that_can_install_it(file, pythons):
    assert wheel_of(file).pythons == pythons


@pytest.mark.parametrize(
    "file",
    [
        "numpy-2.2.6-cp310-cp310-manylinux_2_17_x86_64.whl",
        "numpy-2.2.6-cp311-cp311-manylinux_2_28_aarch64.whl",
        "numpy-2.2.6-cp313-cp313t-manylinux_2_28_aarch64.whl",
        "numpy-2.2.6-cp310-cp310-manylinux_2_39_aarch64.whl",
        "numpy-2.2.6-cp310-cp310-musllinux_1_2_aarch64.whl",
        "old-1.0-py2-none-any.whl",
    ],
)
def test_a_wheel_for_something_else_is_refused_by_name(file):
    with pytest.raises(UsageError, match="does not fit") as refused:
        wheel_of(file)
    assert file in refused.value.message and "3.10 or 3.12" in refused.value.hint


def test_the_gpu_wheel_of_the_index_is_refused():
    with pytest.raises(UsageError, match="no kernels for the GPU of a Jetson"):
        wheel_of("onnxruntime_gpu-1.31.1-cp312-cp312-manylinux_2_34_aarch64.whl")


def test_what_is_no_wheel_is_refused():
    with pytest.raises(UsageError, match="not named as wheels are"):
        wheel_of("numpy.whl")


def test_what_no_wheel_brings_is_missing_for_one_python_or_the_other():
    wheels = [
        wheel_of(name)
        for name in (
            "numpy-2.2.6-cp310-cp310-manylinux_2_17_aarch64.whl",
            "Docstring_Parser-0.18.0-py3-none-any.whl",
            "rich-14.0.0-py3-none-any.whl",
        )
    ]
    required = ("numpy==2.2.6", "docstring-parser==0.18.0", "rich==15.0.0")
    assert missing(required, wheels, "3.10") == ("rich==15.0.0",)
    assert missing(required, wheels, "3.12") == ("numpy==2.2.6", "rich==15.0.0")
