import os
import subprocess
import sys

import pytest

from mmedge.profiling.machine import circumstances as module
from mmedge.profiling.machine.circumstances import circumstances, clock_step_ns, is_mmedge, others_running


@pytest.mark.parametrize(
    "line",
    [
        "/home/x/.venv/bin/python3 /home/x/.venv/bin/mmedge profile a.bundle",
        "/usr/bin/mmedge caption",
        "python -m mmedge ask",
        "python -X dev -m mmedge.profiling.worker 12",
    ],
)
def test_a_command_line_of_mmedge_is_known(line):
    assert is_mmedge(line.split())


def test_a_process_that_mmedge_starts_is_known():
    program = "import sys; import runpy; runpy.run_module('mmedge.profiling.worker', run_name='__main__')"
    assert is_mmedge(["python", "-c", program, "77"])


@pytest.mark.parametrize(
    "line", ["", "python", "vim mmedge/cli.py", "python -m pytest tests", "python -c pass", "x -m"]
)
def test_what_is_not_mmedge_is_left_alone(line):
    assert not is_mmedge(line.split())


def process(root, pid, parent, *words, state="S"):
    folder = root / f"proc/{pid}"
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} (py (x) y) {state} {parent} {pid} 0 0")
    (folder / "cmdline").write_text("\0".join(words) + "\0")


def test_others_are_neither_above_nor_below_this_process(tmp_path):
    own = os.getpid()
    process(tmp_path, 1, 0, "init")
    process(tmp_path, 20, 1, "python", "-m", "mmedge")
    process(tmp_path, own, 20, "python", "-m", "mmedge", "profile")
    process(tmp_path, own + 1, own, "python", "-m", "mmedge.profiling.worker")
    process(tmp_path, 30, 1, "mmedge", "caption")
    process(tmp_path, 31, 30, "python", "-m", "mmedge.profiling.worker")
    process(tmp_path, 32, 1, "mmedge", "ask", state="Z")
    assert others_running(tmp_path) == (30, 31)
    flag = next(each for each in circumstances(tmp_path) if each.code == "others_running")
    assert "30, 31" in flag.text and flag.advice


def test_the_clock_moves_in_small_steps_here():
    assert 0 < clock_step_ns() < module.COARSEST_NS


def test_a_coarse_clock_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "clock_step_ns", lambda: 15_600_000)
    assert "coarse_clock" in [flag.code for flag in circumstances(tmp_path)]


@pytest.mark.parametrize(("options", "told"), [((), False), (("-X", "dev"), True)])
def test_development_mode_is_told(options, told):
    program = "from mmedge.profiling.machine.circumstances import _build_flags as f; print([x.code for x in f()])"
    out = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, check=True).stdout
    assert ("debug_build" in out) is told
