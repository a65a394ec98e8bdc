import json
import mmap
import subprocess
import sys
import threading
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from mmedge.profiling.machine.memory import (
    Watch,
    WeighingClock,
    Weight,
    gpu_of,
    peak_of,
    reset_peak,
    tree_of,
    weigh,
    weight_of,
)
from mmedge.profiling.messages import Answered, Ask, Hello, Load, Loaded

MIB = 1 << 20
CHECKS = Path(__file__).parents[3] / "benchmarks/profiler_checks"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def process(pid: int, parent: int, session: int, **kilobytes: int) -> dict[str, str]:
    """A process and its ``smaps_rollup``."""
    rollup = "\n".join(f"{name}:{count:>12} kB" for name, count in kilobytes.items())
    return {
        f"proc/{pid}/stat": f"{pid} (py) (x) S {parent} {session} {session} 0 -1",
        f"proc/{pid}/smaps_rollup": f"55f8b0a4a000-7ffd9a3f2000 ---p 00000000 00:00 0    [rollup]\n{rollup}",
        f"proc/{pid}/status": "Name:\tpy\nVmHWM:\t    9000 kB\nVmRSS:\t    7000 kB",
    }


TREE = (
    process(7, 1, 7, Rss=900, Pss=600, Pss_Anon=400, Pss_File=150, Pss_Shmem=50)
    | process(8, 7, 7, Rss=90, Pss=60, Pss_Anon=40, Pss_File=20, Pss_Shmem=0)
    | process(9, 8, 9, Rss=9, Pss=6, Pss_Anon=4, Pss_File=2, Pss_Shmem=0)
    | process(10, 1, 7, Rss=2, Pss=1, Pss_Anon=1, Pss_File=0, Pss_Shmem=0)
    | process(11, 1, 11, Rss=5000, Pss=5000, Pss_Anon=5000, Pss_File=0, Pss_Shmem=0)
)


def test_a_tree_is_all_that_descends_from_a_process_and_what_is_left_of_its_session(tmp_path):
    assert tree_of(7, write(tmp_path, TREE)) == [7, 8, 9, 10]


def test_the_weight_of_a_tree_is_the_sum_of_shares_and_shared_memory_must_stay(tmp_path):
    weight = weight_of((7, 8), write(tmp_path, TREE))
    assert weight == Weight(660 << 10, 490 << 10, 170 << 10, None)


def test_processes_that_have_ended_are_left_out(tmp_path):
    root = write(tmp_path, TREE)
    assert weight_of((8, 4711), root) == weight_of((8,), root)
    assert weight_of((4711,), root) is None


def test_a_kernel_that_does_not_split_the_share_gives_no_parts(tmp_path):
    weight = weight_of((7,), write(tmp_path, process(7, 1, 7, Pss=600, Anonymous=400)))
    assert weight == Weight(600 << 10, None, None)


def test_a_page_that_comes_to_be_shared_between_two_looks_counts_once(tmp_path, monkeypatch):
    """The first process is asked before the second has the page too, or the second after."""
    looks = iter(((7, 1000), (8, 500), (8, 500), (7, 500)))

    def text(path: Path) -> str:
        pid, share = next(looks)
        assert path.parent.name == str(pid)
        return f"Pss: {share} kB\nPss_Anon: {share} kB\nPss_File: 0 kB\nPss_Shmem: 0 kB"

    monkeypatch.setattr(
        "mmedge.profiling.machine.memory.text_of", lambda path: "" if "nvmap" in str(path) else text(path)
    )
    weight = weight_of((7, 8), tmp_path)
    assert weight and weight.pss == 1000 << 10


NVMAP = "sys/kernel/debug/nvmap/iovmm/clients"
CLIENTS = """CLIENT                        PROCESS      PID        SIZE
user                             Xorg     5234      10788K
user                           python        7       1500K
user                           python        8          2M
total                                               14336K"""


def test_memory_of_a_jetsons_gpu_is_told_by_process(tmp_path):
    root = write(tmp_path, {**TREE, NVMAP: CLIENTS})
    assert gpu_of((7, 8, 9), root) == (1500 << 10) + (2 << 20)
    assert gpu_of((9,), root) == 0
    weight = weight_of((7, 8), root)
    assert weight and weight.gpu == gpu_of((7, 8), root)


def test_a_machine_that_does_not_tell_has_no_memory_of_a_gpu(tmp_path):
    assert gpu_of((7,), write(tmp_path, TREE)) is None


def test_the_peak_of_this_process_can_be_set_back():
    block = mmap.mmap(-1, 32 * MIB)
    block[::4096] = bytes(len(block) // 4096)
    block.close()
    high = peak_of("self")
    assert reset_peak("self") and high and (peak_of("self") or 0) < high - 24 * MIB


def test_a_clock_that_weighs_knows_the_most_of_each_stage_though_it_was_given_back():
    clock = WeighingClock()
    with clock.stage("read"):
        pass
    for stage, size in (("encode", 64), ("prefill", 16), ("encode", 8)):
        with clock.stage(stage):
            block = mmap.mmap(-1, size * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
            block.close()
    above = {stage: (peak - clock.peaks["read"]) / MIB for stage, peak in clock.peaks.items()}
    assert above["encode"] == pytest.approx(64, abs=2) and above["prefill"] == pytest.approx(16, abs=2)
    assert above["other"] < 2 and set(clock.stages_ns) == {"read", "encode", "prefill"}


def test_a_kernel_without_the_mark_leaves_the_clock_a_clock(monkeypatch):
    monkeypatch.setattr("mmedge.profiling.machine.memory.reset_peak", lambda pid: False)
    clock = WeighingClock()
    with clock.stage("encode"):
        pass
    assert clock.peaks == {} and "encode" in clock.stages_ns


def test_a_process_is_watched_while_the_block_lasts():
    held = [sys.executable, "-c", "import sys; b = bytearray(b'1') * (48 << 20); print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(held, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline()
        with Watch(child.pid, 0.001) as watch:
            pass
        child.communicate()
    assert watch.samples and watch.samples[0][1].anon > 47 * MIB
    assert "memory" not in [thread.name for thread in threading.enumerate()]


class Scripted:
    """A worker whose process is a written tree."""

    name = "scripted"
    pid = 7

    def __init__(self, memory: dict[str, int]) -> None:
        self.memory = memory
        self.asked: list[Ask] = []

    def wait_until_started(self) -> Hello:
        return Hello(0, 1)

    def load(self, order: Load) -> Loaded:
        return Loaded(1, 2, {}, {})

    def ask(self, ask: Ask) -> Answered:
        self.asked.append(ask)
        return Answered("", (), 0, 1, {}, (), (("encode", 0, 1),), self.memory)


def test_every_stage_has_a_row_and_one_that_was_not_looked_at_has_no_share(tmp_path):
    root = write(tmp_path, {**TREE, "proc/7/clear_refs": "", NVMAP: CLIENTS, "proc/device-tree/model": "NVIDIA Jetson"})
    worker = Scripted({"encode": 5 << 20, "other": 4 << 20})
    rows = {row.stage: row for row in weigh(worker, 2, Load("b", None, 0), [Ask("caption", "f", None)] * 2, root)}
    assert list(rows) == ["load", "encode", "other", "steady", "total"]
    assert (rows["encode"].pss, rows["encode"].hwm) == (None, 5 << 20)
    assert (rows["load"].pss, rows["load"].hwm) == (667 << 10, 9000 << 10)
    assert (rows["steady"].hwm, rows["total"].hwm, rows["total"].pss) == (7000 << 10, 9000 << 10, 667 << 10)
    assert {row.c for row in rows.values()} == {2}
    assert rows["total"].unified and rows["total"].gpu == 3548 << 10
    assert (root / "proc/7/clear_refs").read_text() == "5"
    assert all(ask.weigh and ask.spans for ask in worker.asked) and len(worker.asked) == 2


def test_a_process_alone_takes_no_more_than_its_mark(tmp_path):
    """The walk through its pages counts twice what moves meanwhile."""
    alone = {name: text for name, text in TREE.items() if name.startswith("proc/7/")}
    rollup = "Pss: 9500 kB\nPss_Anon: 9000 kB\nPss_File: 500 kB\nPss_Shmem: 0 kB\n"
    root = write(tmp_path, {**alone, "proc/7/smaps_rollup": rollup, "proc/7/clear_refs": ""})
    rows = {row.stage: row for row in weigh(Scripted({}), 0, Load("b", None, 0), [], root)}
    assert (rows["load"].pss, rows["load"].hwm) == (9000 << 10, 9000 << 10)


def test_without_the_mark_there_are_no_peaks_of_stages(tmp_path):
    root = write(tmp_path, {**TREE, "proc/7/clear_refs/cannot be": "written"})
    rows = {row.stage: row for row in weigh(Scripted({}), 0, Load("b", None, 0), [], root)}
    assert rows["load"].hwm is None and rows["load"].pss == 667 << 10
    assert rows["total"].hwm == 9000 << 10  # since the process started


@pytest.fixture(scope="module")
def check():
    spec = spec_from_file_location("p06_memory", CHECKS / "p06_memory.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_known_allocations_of_a_worker_are_seen(check):
    """Private, of a file, shared with a child, given back at once, there for a millisecond."""
    found = check.check(quick=True)
    assert found["passed"], json.dumps(found["worst"])
