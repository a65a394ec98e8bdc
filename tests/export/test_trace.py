"""Interrupted from Python, tracing leaves torch as it was; sizes vary within their ranges."""

import subprocess
import sys

import pytest
import torch

from mmedge.core.family import Component
from mmedge.core.ports import Port, Span
from mmedge.export.trace import trace

SCRIPT = """
import os, signal, sys, threading
from pathlib import Path

import torch

from mmedge.export.load import load_model, read_checkpoint
from mmedge.export.trace import trace

checkpoint = read_checkpoint(Path(sys.argv[1]))
component, model = checkpoint.family.components(checkpoint.config)[0], load_model(checkpoint)
attention = torch.nn.functional.scaled_dot_product_attention
opset = 20  # TensorRT's, for which attention is replaced meanwhile
threading.Timer(float(sys.argv[2]), os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    trace(component, model, opset)
    print("was not interrupted")
except KeyboardInterrupt:
    print("interrupted, tracing" if threading.active_count() > 1 else "interrupted")
print("the next one waits for it", len(trace(component, model, opset).graph) > 0)
for thread in threading.enumerate():
    if not thread.daemon and thread is not threading.main_thread():
        thread.join()
print("attention is torch's", torch.nn.functional.scaled_dot_product_attention is attention)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", ["0.2", "1"])
def test_interrupted_it_ends_in_the_background_and_undoes_what_it_did_to_torch(tiny_checkpoint, tmp_path, seconds):
    folder = tiny_checkpoint(0, tmp_path / "checkpoint")
    ran = subprocess.run([sys.executable, "-c", SCRIPT, folder, seconds], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "interrupted, tracing",
        "the next one waits for it True",
        "attention is torch's True",
    ]


class Doubling(torch.nn.Module):
    """Adds rows of a table of eight to as many rows."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.arange(16.0).reshape(8, 2))

    def forward(self, rows):
        return (rows + self.table[: rows.shape[1]],)


@pytest.mark.slow
@pytest.mark.parametrize("largest", [1, 8])
def test_a_size_is_traced_within_its_range_or_freely_where_that_has_no_room(largest):
    ports = (Port("rows", "float32", (1, "length", 2)),), (Port("sums", "float32", (1, "length", 2)),)
    sizes = {"length": Span(1, 1, largest)}
    program = trace(Component("table", lambda model, rows: model(rows), *ports, sizes=sizes), Doubling(), 23)
    assert [str(size) for size in program.graph.inputs[0].shape] == ["1", "length", "2"]
