import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmedge.errors import BackendError
from mmedge.profiling.machine import confinement, memory_limit
from mmedge.profiling.machine.confinement import confined
from mmedge.profiling.machine.kernel_files import control_groups
from mmedge.profiling.machine.memory_limit import RESOLUTION, Free, LimitTrial, search
from mmedge.profiling.messages import Ask
from mmedge.profiling.run import Candidate

MIB = 1 << 20
WORKER = Path(__file__).parents[3] / "benchmarks/profiler_checks/known_memory.py"


def tried(works, first: int, largest: int = 1 << 40) -> list[tuple[int, bool]]:
    found = []

    def ask(limit: int) -> bool:
        found.append((limit, works(limit)))
        return found[-1][1]

    search(ask, first, largest)
    return found


@pytest.mark.parametrize("need", [700 * MIB, 1000 * MIB, 40 * MIB, 4000 * MIB])
def test_the_smallest_limit_is_found_within_two_percent(need):
    found = tried(lambda limit: limit >= need, 1000 * MIB)
    least = min(limit for limit, works in found if works)
    most = max(limit for limit, works in found if not works)
    assert most < need <= least <= RESOLUTION * most + 1
    assert found[-1] == (least, True) and [limit for limit, _ in found].count(least) == 2
    assert len(found) < 20


def test_what_never_works_is_tried_up_to_the_whole_machine():
    found = tried(lambda limit: False, 1000, largest=1500)
    assert found == [(1000, False), (1250, False), (1500, False)]


def test_a_limit_that_worked_by_chance_has_to_work_again():
    chances = [480 * MIB]

    def by_chance_once(limit: int) -> bool:
        return limit >= 500 * MIB or (limit >= chances[-1] and bool(chances.append(limit * 9) or True))

    found = tried(by_chance_once, 1000 * MIB)
    assert found[-1][1] and found[-1][0] >= 500 * MIB


@pytest.fixture
def trial(tmp_path):
    """A worker that takes 64 MiB while it opens its bundle."""

    def make(size: int = 64 * MIB) -> LimitTrial:
        (bundle := tmp_path / "bundle").write_text(str(size))
        ask = Ask("caption", str(bundle), '[["encode", "nothing", 0]]')
        return LimitTrial(3, Candidate("known", str(bundle), "0", None, {}, 1), [ask], (sys.executable, str(WORKER)))

    return make


@pytest.fixture(params=["as here", "RLIMIT_DATA"])
def method(request, monkeypatch) -> str:
    """Of limiting memory: what can be used on this machine, and what can be used everywhere."""
    if request.param != "as here":
        monkeypatch.setattr(confinement, "control_groups", lambda controller, root: iter(()))
    with confined(None) as place:
        return place.method


def own_groups() -> list[Path]:
    parents = [parent for _, parent in control_groups("memory")]
    return [group for parent in parents for group in parent.glob(f"mmedge-{os.getpid()}-*")]


def test_a_worker_that_needs_more_than_the_limit_is_a_result(trial, method):
    needed = trial().free()
    least = needed.bytes - (64 * MIB if method.startswith("cgroup") else 0)  # data is not there any more at the end
    enough, little = trial().under(least + 96 * MIB, needed), trial().under(least + 24 * MIB, needed)
    assert (enough.c, enough.works, enough.method) == (3, True, method) and "answered" in enough.note
    assert (little.works, little.method) == (False, method) and little.note
    assert own_groups() == []


def test_an_error_without_a_limit_is_an_error(trial):
    broken = trial()
    broken.asks[0] = Ask("caption", broken.candidate.bundle, "no JSON")
    with pytest.raises(BackendError, match="JSONDecodeError"):
        broken.free()
    assert own_groups() == []


def test_a_worker_that_only_moves_pages_is_given_up(trial, monkeypatch):
    monkeypatch.setattr(memory_limit, "PATIENCE", 0.2)
    slow = trial()
    slow.asks[0] = Ask("caption", slow.candidate.bundle, str([["encode", "nothing", 0]] * 200).replace("'", '"'))
    found = slow.under(1 << 34, Free(1.0, 1 << 30))
    assert not found.works and found.note == "it had not answered after 0 s"


def test_what_worked_by_chance_did_not_work(trial, monkeypatch):
    answers = iter((True, False, False, True, False, False, False, False, False, False, True, True))
    again = trial()
    real = memory_limit.Limit
    monkeypatch.setattr(LimitTrial, "free", lambda self: Free(1.0, 100 * MIB))
    monkeypatch.setattr(
        LimitTrial, "under", lambda self, limit, free, tries: real(0, limit, next(answers), "cgroup v1", "answered")
    )
    found = again.smallest()
    least = min(each.bytes for each in found if each.works)
    assert least > max(each.bytes for each in found if not each.works)
    assert any(each.note == "worked by chance: answered" for each in found)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


V2 = {
    "proc/self/cgroup": "0::/user.slice/app.slice/terminal.scope",
    "sys/fs/cgroup/user.slice/app.slice/terminal.scope/cgroup.procs": "",
    "sys/fs/cgroup/user.slice/app.slice/terminal.scope/cgroup.subtree_control": "",
    "sys/fs/cgroup/user.slice/app.slice/cgroup.procs": "",
    "sys/fs/cgroup/user.slice/app.slice/cgroup.subtree_control": "cpu memory pids",
}
V1 = {"proc/self/cgroup": "4:memory:/job\n0::/", "sys/fs/cgroup/memory/job/cgroup.procs": ""}
KERNEL = {
    1: {"memory.limit_in_bytes": "max", "memory.memsw.limit_in_bytes": "max", "memory.max_usage_in_bytes": "4096"},
    2: {"memory.max": "max", "memory.swap.max": "max", "memory.peak": "8192", "memory.events": "oom 1\noom_kill 1"},
}


@pytest.fixture
def kernel(monkeypatch):
    """Fills new groups with files, as the kernel does."""

    def fill(version: int) -> None:
        monkeypatch.setattr(
            confinement, "_make", lambda group: write(group, KERNEL[version] | {"cgroup.procs": ""}) and None
        )
        monkeypatch.setattr(confinement, "_remove", shutil.rmtree)

    return fill


def test_a_group_of_version_2_is_made_where_memory_is_passed_on_to_children(kernel, tmp_path):
    kernel(2)
    with confined(50 * MIB, write(tmp_path, V2)) as place:
        assert place.method == "cgroup v2" and place.group
        assert place.group.parent.name == "app.slice"
        assert (place.group / "memory.max").read_text() == str(50 * MIB)
        assert (place.group / "memory.swap.max").read_text() == "0"
        assert place.peak(1) == 8192 and place.killed()
        out = subprocess.run([*place.through, "sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout
        assert (place.group / "cgroup.procs").read_text() == out
    assert not place.group.exists()


def test_a_group_of_version_1_is_made_inside_the_own_one_and_gives_no_swap(kernel, tmp_path):
    kernel(1)
    with confined(50 * MIB, write(tmp_path, V1)) as place:
        assert place.method == "cgroup v1" and place.group and place.group.parent.name == "job"
        assert (place.group / "memory.limit_in_bytes").read_text() == str(50 * MIB)
        assert (place.group / "memory.memsw.limit_in_bytes").read_text() == str(50 * MIB)
        assert place.peak(1) == 4096 and not place.killed()


def test_without_a_limit_nothing_is_limited(kernel, tmp_path):
    kernel(1)
    with confined(None, write(tmp_path, V1)) as place:
        assert place.group and (place.group / "memory.limit_in_bytes").read_text() == "max\n"


@pytest.mark.parametrize("files", [{}, V1, {name: text.replace("memory", "") for name, text in V2.items()}])
def test_where_no_group_counts_memory_data_is_limited(files, tmp_path):
    """Folders that the kernel does not fill are no groups."""
    with confined(64 * MIB, write(tmp_path, files)) as place:
        assert place.method == "RLIMIT_DATA" and place.group is None
        limits = subprocess.run(
            [*place.through, "cat", "/proc/self/limits"], capture_output=True, text=True, check=True
        )
    assert f"Max data size             {64 * MIB}" in limits.stdout
    assert [path for path in tmp_path.rglob("mmedge-*")] == []


def test_groups_that_a_killed_profiler_left_are_removed(tmp_path):
    root = write(tmp_path, V1 | {"proc/4711/stat": ""})
    parent = root / "sys/fs/cgroup/memory/job"
    for left in ("mmedge-99-0", "mmedge-4711-0", "mmedge-tools"):
        (parent / left).mkdir()
    with confined(None, root):
        pass
    assert sorted(path.name for path in parent.iterdir() if path.is_dir()) == ["mmedge-4711-0", "mmedge-tools"]
