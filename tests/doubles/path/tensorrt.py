"""The double of TensorRT, as a module of that name for processes that have this folder on their path."""

import os
import sys

if "MMEDGE_DOUBLES" not in os.environ:
    raise ModuleNotFoundError("No module named 'tensorrt'", name="tensorrt")

from mmedge_doubles.install import double_of_this_process

sys.modules[__name__] = double_of_this_process().tensorrt
