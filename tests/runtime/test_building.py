"""Graphs compiled in processes of their own; the engine is a plugin that fails in every way there is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmedge.core import find
from mmedge.core.bundle import Graph
from mmedge.core.children import _environment
from mmedge.core.ports import Port
from mmedge.errors import BackendError, InputError, ResourceError
from mmedge.runtime.building import BuildKilled, MemoryMeter, build_apart

GRAPH = Graph("tower", "graphs/tower.onnx", (), (Port("y", "float32", (1,)),), "float32")


@pytest.fixture
def build(pretend, tmp_path):
    def run(what: str = "", watch=lambda moment: None, **options) -> Path:
        pretend("PRETEND_TOWER", what)
        return build_apart(find.backend("pretend"), GRAPH, tmp_path / "x.onnx", tmp_path, options, watch=watch)

    return run


def test_another_process_compiles_with_the_options_of_the_target(build):
    process, options = build(workspace_mb=64).read_text().split(" ", 1)
    assert int(process) != os.getpid() and options == "[('workspace_mb', 64)]"


def test_what_an_engine_prints_does_not_disturb_it(build, capfd):
    assert build("print").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("what", "kind"), [("refuse", BackendError), ("input", InputError)])
def test_its_errors_are_told_as_if_they_were_ours(what, kind, build):
    with pytest.raises(kind) as caught:
        build(what)
    assert caught.value.hint == ("export it again" if what == "refuse" else None)


@pytest.mark.parametrize(
    ("what", "end"),
    [("crash", "was ended by SIGSEGV: assertion failed: never"), ("bug", "ended with exit code 1: TypeError: a bug")],
)
def test_a_death_is_told_with_the_last_words(what, end, build):
    with pytest.raises(BackendError, match=f"the process that compiles `tower` {end}"):
        build(what)


def test_more_memory_than_allowed_ends_it_and_both_figures_are_named(build):
    seen = []
    with pytest.raises(ResourceError, match=r"took [0-9]+ MiB, it may take 150") as caught:
        build("eat", watch=lambda moment: seen.append(moment.peak_mb), builder_mb=150)
    assert 150 < max(seen) < 600 and "--builder-mb" in caught.value.hint


def test_one_that_the_system_ends_is_taken_for_too_much_memory(build):
    with pytest.raises(ResourceError, match=r"was ended by the system at [0-9]+ MiB; it may take 4000"):
        build("killed", builder_mb=4000)


def test_what_an_engine_knows_of_its_progress_is_passed_on(build):
    seen = []
    build("tell", watch=lambda moment: seen.append(moment.done))
    assert seen[-1] is not None and {done for done in seen if done} <= {0.25, 0.5, 0.75}


def test_it_volunteers_to_be_ended_first(build, tmp_path):
    found = []

    def watch(moment) -> None:
        for path in tmp_path.iterdir():
            if path.name.isdigit():
                found.append(Path(f"/proc/{path.name}/oom_score_adj").read_text().strip())
                os.kill(int(path.name), signal.SIGKILL)

    with pytest.raises(ResourceError):
        build(f"wait {tmp_path}", watch=watch)
    assert found[0] == "1000"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_goes_on_when_the_parent_ends(how, pretend, tmp_path):
    pretend("PRETEND_TOWER", f"wait {tmp_path}")
    program = (
        "from pathlib import Path; from mmedge.core import find; from mmedge.runtime.building import build_apart;"
        "from mmedge.core.bundle import Graph; from mmedge.signals import raise_on_signals; raise_on_signals();"
        "build_apart(find.backend('pretend'), Graph('tower', 'x', (), (), 'float32'), Path('x'), Path('x'), {})"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], env=_environment(), stderr=subprocess.DEVNULL)
    while not (children := [path for path in tmp_path.iterdir() if path.name.isdigit()]):
        time.sleep(0.02)
    parent.send_signal(how)
    parent.wait()
    for _ in range(500):
        if not Path("/proc", children[0].name).exists():
            return
        time.sleep(0.01)
    pytest.fail("the child goes on")


def test_on_a_board_with_shared_memory_what_the_board_lost_counts(tmp_path):
    process, memory = tmp_path / "proc/7/status", tmp_path / "proc/meminfo"
    process.parent.mkdir(parents=True)
    process.write_text("VmHWM:\t 999999 kB\nRssAnon:\t  2048 kB\nRssFile:\t 90000 kB\nRssShmem:\t  1024 kB\n")
    memory.write_text("MemTotal:  8000000 kB\nMemAvailable:    4096000 kB\n")
    (tmp_path / "etc").mkdir()
    alone = MemoryMeter(7, tmp_path)
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.7, GCID: 1")
    shared = MemoryMeter(7, tmp_path)
    memory.write_text("MemTotal:  8000000 kB\nMemAvailable:    2048000 kB\n")
    assert (alone.taken(), shared.taken()) == (3.0, 2000.0)


@pytest.mark.parametrize(("what", "killed"), [("crash", True), ("bug", False), ("refuse", False)])
def test_a_death_by_a_signal_is_told_apart(what, killed, build):
    with pytest.raises(BackendError) as caught:
        build(what)
    assert isinstance(caught.value, BuildKilled) == killed
