"""Whatever happens to an export, and whenever: a complete bundle or none, the old one or the new one."""

import ctypes
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from torch.utils import _python_dispatch as modes

from mmedge import cli
from mmedge.core.bundle import open_bundle
from mmedge.export import build
from mmedge.export.trace import trace
from mmedge.signals import raise_on_signals

pytestmark = pytest.mark.slow
KIB, MIB = 1 << 10, 1 << 20
NO_NAMESPACES, SWALLOWED = 77, 98
"""Exit codes of a child that may not mount anything, and of one that went on after a signal."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Child:
    """A process that runs one command; ``output`` is the end of a pipe that has what it prints."""

    pid: int
    output: int
    printed: str = ""

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_for(self, text: str) -> None:
        """Until it has printed ``text``, or has ended."""
        while text not in self.printed and (more := os.read(self.output, 1000)):
            self.printed += more.decode()

    def end(self) -> tuple[int, str]:
        """Its exit code, negative for the signal that killed it, and what it printed."""
        with open(self.output, errors="replace") as file:
            self.printed += file.read()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.printed


@dataclass
class Exporter:
    """Exports in forked processes, where torch is loaded and the model is traced already: that takes nearly all the
    time of a tiny export and writes nothing."""

    checkpoint: Path
    recipe: Path
    """Gives the bundle the title ``old``."""
    bundle: Path
    """What an undisturbed export makes."""
    old: Path
    seconds: float
    """Of an undisturbed export."""

    def arguments(self, target: Path, *more: str) -> list[str]:
        return ["export", str(self.checkpoint), "-o", str(target), *more]

    def start(self, target: Path, *more: str, setup: Callable[[], None] = lambda: None) -> Child:
        """Begin an export; it handles signals when this returns."""
        return self.run(lambda: setup() or cli.run(self.arguments(target, *more)))

    def run(self, task: Callable[[], int]) -> Child:
        (ready, begun), (output, printed) = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
            pid = os.fork()
        if pid:
            os.close(begun), os.close(printed)
            os.read(ready, 1)
            os.close(ready)
            return Child(pid, output)
        code = 99
        try:
            os.dup2(printed, 1), os.dup2(printed, 2), os.close(printed), os.close(output)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            caught = catch_signals()
            os.close(begun)
            code = task()
            code = SWALLOWED if caught and code == 0 else code
        except SystemExit as leaving:
            code = leaving.code
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)


def catch_signals() -> list[int]:
    """Handle signals as the command line does; the list fills with those that were raised as an exception."""
    caught: list[int] = []
    for number in STOPS:
        signal.signal(
            number, signal.SIG_DFL
        )  # whoever started these tests may ignore one, as shells do in the background
    raise_on_signals()
    for number in STOPS:
        handler = signal.getsignal(number)
        signal.signal(number, lambda *event, handler=handler: caught.append(event[0]) or handler(*event))
    return caught


@pytest.fixture(scope="module")
def exporter(tiny_checkpoint, tmp_path_factory):
    work = tmp_path_factory.mktemp("exporter")
    checkpoint, traced = tiny_checkpoint(0, work / "checkpoint"), {}

    def once(component, model, opset):
        return traced.get(component.name) or traced.setdefault(component.name, trace(component, model, opset))

    recipe = work / "recipe.toml"
    recipe.write_text('name = "tiny"\nmodel = "tiny"\ntitle = "old"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "trace", once)
        build.export(str(checkpoint), output=work / "bundle")
        started = time.monotonic()
        build.export(str(checkpoint), output=work / "old", recipe=recipe)
        seconds = time.monotonic() - started
        yield Exporter(checkpoint, recipe, work / "bundle", work / "old", seconds)


def state(exporter: Exporter, path: Path) -> str:
    """``none``, ``old`` or ``new``; every byte is compared with that of an undisturbed export."""
    if not os.path.lexists(path):
        return "none"
    bundle = open_bundle(path)
    bundle.verify()
    names = {open_bundle(exporter.bundle).digest: "new", open_bundle(exporter.old).digest: "old"}
    return names[bundle.digest]


def tree(folder: Path) -> dict[str, str | None]:
    """Digests, because a difference of long contents takes minutes to be shown."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.name.endswith(".lock")
    }


def prepare(exporter: Exporter, target: Path, *, old: bool) -> tuple[str, ...]:
    """An empty place, or one with an old bundle that is to be replaced; the options that an export needs there."""
    if target.exists():
        shutil.rmtree(target)
    if old:
        shutil.copytree(exporter.old, target)
    return ("--force",) if old else ()


EXISTING = pytest.mark.parametrize("old", [False, True], ids=["nothing there", "an old bundle there"])


def test_an_undisturbed_export_is_the_same_in_a_process_of_its_own(exporter, tmp_path):
    code, printed = exporter.start(tmp_path / "out").end()
    assert (code, state(exporter, tmp_path / "out")) == (0, "new"), printed
    assert os.listdir(tmp_path) == ["out"]


@EXISTING
def test_killed_at_a_random_time_there_is_a_complete_bundle_or_none(exporter, old, tmp_path):
    target, states, random_ = tmp_path / "out", Counter(), random.Random(0)
    for _ in range(20):
        more = prepare(exporter, target, old=old)
        child = exporter.start(target, *more)
        time.sleep(random_.uniform(0, exporter.seconds))
        child.signal(signal.SIGKILL)
        code, _ = child.end()
        states[state(exporter, target)] += 1
        assert code in (0, -signal.SIGKILL)
    print(f"20 kills within {exporter.seconds:.1f} s: {dict(states)}")
    assert states.keys() <= ({"old", "new"} if old else {"none", "new"})
    code, printed = exporter.start(target, "--force").end()
    assert (code, state(exporter, target), os.listdir(tmp_path)) == (0, "new", ["out"]), printed


@EXISTING
def test_a_signal_at_a_random_time_ends_cleanly(exporter, old, tmp_path):
    target, ends, states, random_, longest = tmp_path / "out", Counter(), Counter(), random.Random(1), 0.0
    for number in 7 * STOPS:
        more = prepare(exporter, target, old=old)
        child = exporter.start(target, *more)
        time.sleep(random_.uniform(0, exporter.seconds))
        sent = time.monotonic()
        child.signal(number)
        code, printed = child.end()
        longest = max(longest, time.monotonic() - sent)
        assert code in (0, 128 + number), printed
        assert code == 0 or f"stopped by {number.name}" in printed
        assert code or state(exporter, target) == "new"
        assert set(os.listdir(tmp_path)) <= {"out"}, "nothing else is left"
        states[state(exporter, target)] += 1
        ends[code] += 1
    print(f"21 signals: {dict(ends)}, {dict(states)}; the slowest end came after {longest:.2f} s")
    assert states.keys() <= ({"old", "new"} if old else {"none", "new"})
    assert ends.keys() >= {128 + number for number in STOPS}


@pytest.mark.parametrize("stage", ["plan", "load", "trace decoder", "agree"])
def test_two_signals_in_a_row_end_as_one_does(exporter, stage, tmp_path):
    child = exporter.start(tmp_path / "out")
    child.wait_for(f"\n{stage}" if stage != "plan" else stage)
    child.signal(signal.SIGINT)
    child.signal(signal.SIGINT)
    code, printed = child.end()
    assert code == 130, printed
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("seconds", [0, 1, 2, 4])
def test_a_signal_while_tracing_ends_cleanly(exporter, seconds, tmp_path, monkeypatch):
    """Tracing runs through much code of others that might swallow an exception."""
    monkeypatch.setattr(build, "trace", trace)
    child = exporter.start(tmp_path / "out")
    child.wait_for("load")
    time.sleep(seconds)
    child.signal(signal.SIGTERM)
    code, printed = child.end()
    assert code == 143, printed
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("entered", [1, 144, 233, 377])
def test_a_signal_while_torch_enters_a_mode_ends_cleanly(exporter, entered, tmp_path, monkeypatch):
    """Its C++ aborts the process when an exception leaves one behind, at some depths of nesting."""
    push, parent, pushed = modes._push_mode, os.getpid(), count(1)

    def interrupted(mode):
        push(mode)
        if os.getpid() != parent and next(pushed) == entered:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(build, "trace", trace)
    monkeypatch.setattr(modes, "_push_mode", interrupted)
    code, printed = exporter.start(tmp_path / "out").end()
    assert code == 143, printed
    assert os.listdir(tmp_path) == []


@EXISTING
def test_a_limit_on_file_size_leaves_everything_as_it_was(exporter, old, tmp_path):
    target = tmp_path / "out"
    more = prepare(exporter, target, old=old)
    before, sizes = tree(tmp_path), Counter()
    for limit in (0, 1, 100, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 96 * KIB, MIB):

        def setup(limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        code, printed = exporter.start(target, *more, setup=setup).end()
        sizes[code] += 1
        if code == 0:
            break
        refused = rf"^error: .*{tmp_path}.*: (File too large|problem writing|[0-9]+ requested)"
        assert code == 6 and re.search(refused, printed, re.MULTILINE), printed
        assert tree(tmp_path) == before
    assert sizes[6] > 4 and state(exporter, target) == "new"


@pytest.mark.parametrize("checked", [True, False], ids=["space checked", "space not checked"])
@EXISTING
def test_on_a_disk_of_any_size_it_fits_or_leaves_everything_as_it_was(exporter, old, checked, tmp_path, monkeypatch):
    """A little more room each time until the export succeeds; without the check of free space, every write may fail."""
    if not checked:
        monkeypatch.setattr(build, "check_space", lambda path, needed: None)
    disk, target = tmp_path / "disk", tmp_path / "disk" / "out"
    disk.mkdir()

    def task():
        mount_tmpfs(disk)
        more = prepare(exporter, target, old=old)
        for free in range(0, 8 * MIB, 64 * KIB):
            room = os.statvfs(disk)
            with (disk / "ballast").open("wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, room.f_bavail * room.f_frsize - free or 1)
            before = tree(disk)
            code = cli.run(exporter.arguments(target, *more))
            if code == 0:
                break
            assert code == 6 and tree(disk) == before
            (disk / "ballast").unlink()
        assert state(exporter, target) == "new" and free > 500 * KIB
        return 0

    code, printed = exporter.run(task).end()
    if code == NO_NAMESPACES:
        pytest.skip("this machine allows no mount namespaces")
    assert code == 0, printed
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    room = r"needs (more than )?[0-9.]+ MiB, [0-9.]+ MiB are free there"
    refused = rf"error: cannot write in `{disk}`: No space left.*|error: writing `{target}` .*{room}"
    assert len(errors) > 5 and all(re.fullmatch(refused, line) for line in errors), errors


def mount_tmpfs(path: Path, *, read_only: bool = False) -> None:
    """A file system that this process alone sees; it ends with `NO_NAMESPACES` where that is forbidden."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(0x20000 | 0x10000000):  # CLONE_NEWNS, CLONE_NEWUSER
        raise SystemExit(NO_NAMESPACES)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None):  # MS_REC, MS_PRIVATE
        raise SystemExit(NO_NAMESPACES)
    if libc.mount(b"tmpfs", bytes(path), b"tmpfs", int(read_only), b"size=16m"):  # MS_RDONLY is 1
        raise SystemExit(NO_NAMESPACES)


def test_a_read_only_disk_is_refused(exporter, tmp_path):
    def task():
        mount_tmpfs(tmp_path, read_only=True)
        return cli.run(exporter.arguments(tmp_path / "out"))

    code, printed = exporter.run(task).end()
    if code == NO_NAMESPACES:
        pytest.skip("this machine allows no mount namespaces")
    assert code == 6 and f"cannot write in `{tmp_path}`: Read-only file system" in printed


def test_of_exports_that_start_together_one_wins(exporter, tmp_path):
    children = [exporter.start(tmp_path / "out") for _ in range(5)]
    ends = [child.end() for child in children]
    codes = Counter(code for code, _ in ends)
    assert codes == {0: 1, 10: 4}, ends
    pids = "|".join(str(child.pid) for child in children)
    for code, printed in ends:
        assert code == 0 or re.search(rf"error: `.*out` is being written by process ({pids})\n", printed)
    assert state(exporter, tmp_path / "out") == "new" and os.listdir(tmp_path) == ["out"]


def test_a_second_export_names_the_first_and_does_not_disturb_it(exporter, tmp_path):
    first = exporter.start(tmp_path / "out")
    while not (tmp_path / "out.lock").exists() or not list(tmp_path.glob("out.tmp-*/work")):
        time.sleep(0.01)
    first.signal(signal.SIGSTOP)
    started = time.monotonic()
    code, printed = exporter.start(tmp_path / "out").end()
    print(f"refused after {time.monotonic() - started:.2f} s")
    assert code == 10 and f"is being written by process {first.pid}" in printed
    first.signal(signal.SIGCONT)
    assert first.end()[0] == 0 and state(exporter, tmp_path / "out") == "new"


def test_the_report_of_an_export_is_json(exporter, tmp_path):
    code, printed = exporter.start(tmp_path / "out", "--json").end()
    report = json.loads(printed[printed.index("{") :])
    assert code == 0 and report["bundle"] == str(tmp_path / "out")
    assert next(stage["name"] for stage in report["stages"]) == "plan"
    assert {seen["component"] for seen in report["agreement"]} == {"encoder", "decoder"}
