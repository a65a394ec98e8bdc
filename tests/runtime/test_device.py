import os
import platform

from mmedge.runtime import device
from mmedge.runtime.device import this_device

PI = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd dotprod
CPU implementer\t: 0x41
CPU part\t: 0xd0b

processor\t: 1
BogoMIPS\t: 108.00

Revision\t: c04170
Serial\t\t: 1234
Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""


def test_this_machine_is_described():
    here = this_device()
    assert here.arch == {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    assert 1 <= here.cores <= os.cpu_count() and here.memory_mb > 256 and here.name and here.processor


def test_two_looks_at_one_machine_see_the_same():
    assert this_device() == this_device()


def test_a_board_is_called_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(PI)
    (tmp_path / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    monkeypatch.setattr(device, "_PROCESSORS", tmp_path / "cpuinfo")
    monkeypatch.setattr(device, "_BOARD", tmp_path / "model")
    here = this_device()
    assert here.name == "Raspberry Pi 5 Model B Rev 1.0"
    assert here.processor == "CPU implementer: 0x41; CPU part: 0xd0b; Features: fp asimd dotprod"


def test_what_changes_while_a_processor_runs_does_not_count(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(
        "model name\t: Some CPU\ncpu MHz\t\t: 2500.1\nbogomips\t: 5190\nflags\t\t: avx2 fma\n\n"
    )
    monkeypatch.setattr(device, "_PROCESSORS", tmp_path / "cpuinfo")
    assert this_device().processor == "flags: avx2 fma; model name: Some CPU"
