"""Whatever happens to a writer, and wherever: a complete bundle or none, the old or the new, never a third state."""

import dataclasses
import itertools
import os
import pickle
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from mmedge.core.bundle import open_bundle
from mmedge.errors import ResourceError, UsageError

KIB = 1 << 10


@pytest.fixture(scope="module")
def small(workshop):
    """One graph and one asset: as few steps as a writer can have."""
    names = ("graphs/encoder.onnx", "graphs/encoder.bin", "assets/tokenizer.json")
    return dataclasses.replace(
        workshop,
        files={name: workshop.files[name] for name in names},
        manifest=msgspec.structs.replace(
            workshop.manifest,
            graphs=workshop.manifest.graphs[:1],
            agreement=workshop.manifest.agreement[:1],
            golden=(),
        ),
    )


def state(path):
    """``none``, or the title of the bundle, whose every byte was verified."""
    if not os.path.lexists(path):
        return "none"
    bundle = open_bundle(path)
    bundle.verify()
    return bundle.manifest.title


def clear(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def with_old(small, path):
    small.write(path, title="old")


def without_old(small, path):
    pass


CASES = pytest.mark.parametrize(("prepare", "allowed"), [(without_old, {"none", "new"}), (with_old, {"old", "new"})])


@pytest.fixture
def memory_disk():
    """A folder in memory: hundreds of runs need not wait for the disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
@CASES
def test_killed_at_any_step_there_is_a_complete_bundle_or_none(
    prepare, allowed, stride, memory_disk, small, in_child, signal_at_step
):
    target, states = memory_disk / "here/out", Counter()
    for step in itertools.count(1, stride):
        (memory_disk / "here").mkdir()
        prepare(small, target)

        def task(step=step):
            signal_at_step(signal.SIGKILL, step)
            small.write(target, title="new", force=True)

        end = in_child(task)
        states[state(target)] += 1
        small.write(target, title="next", force=True)
        assert os.listdir(target.parent) == ["out"], "the next run left what the killed one had left"
        assert state(target) == "next"
        shutil.rmtree(target.parent)
        if end == 0:
            break
        assert end == -signal.SIGKILL
    print(f"killed at every {stride}. of {step} steps: {dict(states)}")
    assert step > 40 and states.keys() == allowed


@CASES
def test_killed_at_a_random_time_there_is_a_complete_bundle_or_none(
    prepare, allowed, tmp_path, workshop, start, wait, in_child
):
    target, states, random_ = tmp_path / "out", Counter(), random.Random(0)
    longest = 0.3
    for _ in range(20):
        clear(tmp_path)
        prepare(workshop, target)
        child = start(lambda: workshop.write(target, title="new", force=True))
        delay = random_.uniform(0, longest)
        time.sleep(delay)
        longest = delay if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) else longest
        os.kill(child, signal.SIGKILL)
        wait(child)
        states[state(target)] += 1
    print(f"20 kills within {longest:.2f} s: {dict(states)}")
    workshop.write(target, title="next", force=True)
    assert os.listdir(tmp_path) == ["out"]
    assert states.keys() <= allowed


def end_like_the_command_line(*_signals):
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@CASES
def test_a_signal_at_any_step_ends_cleanly(number, code, prepare, allowed, tmp_path, small, in_child, signal_at_step):
    target, states = tmp_path / "here/out", Counter()
    for step in itertools.count(1, 5):
        (tmp_path / "here").mkdir()
        prepare(small, target)

        def task(step=step):
            end_like_the_command_line()
            signal_at_step(number, step)
            small.write(target, title="new", force=True)

        end = in_child(task)
        states[state(target)] += 1
        # A lock file may stay if the signal comes before the lock is held: it locks nothing.
        assert set(os.listdir(target.parent)) <= {"out", "out.lock"}
        shutil.rmtree(target.parent)
        if end == 0:
            break
        assert end == code
    assert step > 20 and states.keys() <= allowed


def test_an_impatient_second_signal_leaves_only_what_the_next_run_removes(memory_disk, small, in_child, signal_at_step):
    for step in range(1, 60, 4):

        def task(step=step):
            end_like_the_command_line()
            signal_at_step(signal.SIGINT, step)
            signal_at_step(signal.SIGINT, step + 2)
            signal_at_step(signal.SIGINT, step + 4)
            small.write(memory_disk / "out", title="new", force=True)

        assert in_child(task) in (0, 130)
        assert state(memory_disk / "out") in ("none", "new", "next")
        small.write(memory_disk / "out", title="next", force=True)
        assert os.listdir(memory_disk) == ["out"]


@CASES
def test_a_limit_on_file_size_leaves_everything_as_it_was(prepare, allowed, tmp_path, small, in_child, tree, capfd):
    prepare(small, tmp_path / "out")
    before = tree(tmp_path)
    for limit in (0, 1, 10, 100, 1000, 2000, 4000, 4223):

        def task(limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                small.write(tmp_path / "out", title="new", force=True)
            finally:  # so that the message can be written
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        assert in_child(task) == ResourceError.exit_code
        assert re.search(rf"error: .*{tmp_path}.*: File too large", capfd.readouterr().err)
        assert tree(tmp_path) == before


@CASES
def test_on_a_disk_of_any_size_it_fits_or_leaves_everything_as_it_was(
    prepare, allowed, tmp_path, small, in_namespace, mount_tmpfs, tree, capfd
):
    """Give the writer a little more each time until it succeeds."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def task():
        mount_tmpfs(disk, "size=1m")
        prepare(small, disk / "out")
        for free in itertools.count(0, 4 * KIB):
            statistics = os.statvfs(disk)
            with (disk / "ballast").open("wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, statistics.f_bavail * statistics.f_frsize - free or 1)
            before = tree(disk)
            try:
                small.write(disk / "out", title="new", force=True)
            except ResourceError as error:
                (tmp_path / "messages").open("a").write(f"{error}\n")
                assert tree(disk) == before
            else:
                break
            (disk / "ballast").unlink()
        assert state(disk / "out") == "new"
        assert free >= 16 * KIB

    assert in_namespace(task) == 0
    messages = (tmp_path / "messages").read_text().splitlines()
    assert len(messages) >= 5 and all("No space left on device" in message for message in messages)
    assert re.search(r"it needs more than [0-9.]+ MiB, [0-9.]+ MiB are free there", messages[-1])


WRITER = """
import pickle, sys
from pathlib import Path
from mmedge.core.writing import new_bundle
from mmedge.errors import MmedgeError
target, files, manifest = pickle.load(open(sys.argv[1], "rb"))
try:
    with new_bundle(target, force=True) as draft:
        for name, content in files.items():
            (draft.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.folder / name).write_bytes(content)
        draft.finish(manifest)
except MmedgeError as error:
    sys.exit(error.exit_code)
"""
FAULTS = {
    "killed": ("signal=KILL", -signal.SIGKILL),
    "EIO": ("error=EIO", ResourceError.exit_code),
    "ENOSPC": ("error=ENOSPC", ResourceError.exit_code),
}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", ["fsync", "write", "mkdir", "fchmod", "rename", "renameat2"])
@CASES
def test_a_fault_at_any_system_call_leaves_the_old_or_the_new(prepare, allowed, call, fault, memory_disk, small, tree):
    injection, code = FAULTS[fault]
    target, before, states = memory_disk / "here/out", {}, Counter()
    job = (target, small.files, msgspec.structs.replace(small.manifest, title="new"))
    (memory_disk / "job").write_bytes(pickle.dumps(job))
    for number in itertools.count(1):
        (memory_disk / "here").mkdir()
        prepare(small, target)
        before = tree(target.parent)
        strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:{injection}:when={number}"]
        run = subprocess.run([*strace, sys.executable, "-c", WRITER, str(memory_disk / "job")], capture_output=True)
        states[state(target)] += 1
        if run.returncode and code > 0:
            assert run.returncode == code and tree(target.parent) == before, run.stderr.decode()
        small.write(target, title="next", force=True)
        assert os.listdir(target.parent) == ["out"]
        shutil.rmtree(target.parent)
        if run.returncode == 0:
            break
        assert run.returncode == code, run.stderr.decode()
    print(f"{fault} at {number - 1} calls of {call}: {dict(states)}")
    assert states.keys() <= allowed and (number > 1 or call in ("rename", "renameat2"))


def test_the_next_run_cleans_up_even_if_it_refuses_to_write(tmp_path, small, in_child, signal_at_step):
    small.write(tmp_path / "out", title="old")

    def task():
        signal_at_step(signal.SIGKILL, 30)
        small.write(tmp_path / "out", title="new", force=True)

    assert in_child(task) == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 3
    with pytest.raises(UsageError, match="exists already"):
        small.write(tmp_path / "out", title="new")
    assert os.listdir(tmp_path) == ["out"]
