"""Shared by all tests."""

import os
import signal
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

# Where the doubles of TensorRT and of the CUDA runtime are.
sys.path.insert(0, str(Path(__file__).with_name("doubles")))
# A shell lets what it starts in the background ignore these; tests send them, and their children inherit it.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)
# No test reaches the network: a model that is not there is an error at once.
os.environ["HF_HUB_OFFLINE"] = "1"
# Threads of torch that share a tiny model mostly wait for each other: on a busy machine up to twenty times as long.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Callable[[int, Path], Path]:
    """``tiny_checkpoint(index, folder)`` writes a checkpoint of the `blip` family's tiny config ``index`` there."""
    from mmedge.families.blip import FAMILY

    spec = spec_from_file_location("checkpoints", Path(__file__).with_name("checkpoints.py"))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda index, folder: module.make_blip(FAMILY.tiny[index], folder)
