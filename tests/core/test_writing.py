"""A bundle is written whole, where it was asked for and nowhere else, or refused before any work starts."""

import errno
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmedge.core import writing
from mmedge.core.bundle import MANIFEST, open_bundle
from mmedge.core.writing import check_space, new_bundle
from mmedge.errors import BundleError, MmedgeError, ResourceError, UsageError

MIB = 1 << 20


def test_what_is_written_can_be_verified_and_nothing_else_is_left(tmp_path, workshop):
    bundle = workshop.write(tmp_path / "out")
    bundle.verify()
    assert bundle == open_bundle(tmp_path / "out")
    assert bundle.manifest == workshop.listed
    assert os.listdir(tmp_path) == ["out"]


def test_two_exports_are_byte_for_byte_the_same(tmp_path, workshop, tree):
    first, second = (workshop.write(tmp_path / name) for name in ("first", "second"))
    assert first.digest == second.digest and tree(first.path) == tree(second.path)


def test_everybody_may_read_a_bundle_whatever_the_umask(tmp_path, workshop, in_child):
    for umask in (0o000, 0o077):
        assert in_child(lambda umask=umask: (os.umask(umask), workshop.write(tmp_path / f"{umask}"))) == 0
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / f"{umask}").rglob("*")}
        assert set(modes.values()) == {0o644, 0o755}
        assert all((mode == 0o755) == path.is_dir() for path, mode in modes.items())
        assert stat.S_IMODE((tmp_path / f"{umask}").stat().st_mode) == 0o755


def test_everything_is_on_the_disk_before_it_is_put_in_place(tmp_path, workshop, monkeypatch):
    real, events = {name: getattr(os, name) for name in ("fsync", "rename")}, []

    def fsync(descriptor):
        real["fsync"](descriptor)
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    def rename(old, new):
        events.append("rename")
        real["rename"](old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    with new_bundle(tmp_path / "out") as draft:
        workshop.put_files(draft.folder)
        draft.finish(workshop.manifest)
        before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    synced = [os.path.relpath(path, draft.folder) for path in before]
    folders = ["assets", "golden/0", "golden", "graphs", "."]
    assert sorted(synced[:10]) == sorted(workshop.files)
    assert synced[10:12] == [MANIFEST, "manifest.sha256"]
    assert sorted(synced[12:]) == sorted(folders) and synced[-1] == "."
    assert after == [str(tmp_path)]


def test_a_draft_that_is_not_finished_leaves_nothing(tmp_path, workshop):
    with new_bundle(tmp_path / "out") as draft:
        workshop.put_files(draft.folder)
        assert draft.folder.parent == tmp_path and draft.folder.name.startswith(f"out.tmp-{os.getpid()}-")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_error_on_the_way_leaves_nothing_and_is_passed_on(error, tmp_path, workshop):
    with pytest.raises(error), new_bundle(tmp_path / "out") as draft:
        workshop.put_files(draft.folder)
        raise error
    assert os.listdir(tmp_path) == []


def hard_link(folder):
    os.link(folder / "graphs/encoder.bin", folder / "graphs/decoder2.bin")


MISTAKES = {
    "hard link": hard_link,
    "link": lambda folder: (folder / "graphs/link.bin").symlink_to("encoder.bin"),
    "dangling link": lambda folder: (folder / "link").symlink_to("nowhere"),
    "linked folder": lambda folder: (folder / "linked").symlink_to("graphs"),
    "fifo": lambda folder: os.mkfifo(folder / "fifo"),
    "empty folder": lambda folder: (folder / "empty").mkdir(),
    "bad name": lambda folder: (folder / "README.md").write_bytes(b""),
    "name that is not text": lambda folder: Path(os.fsdecode(bytes(folder) + b"/\xff")).write_bytes(b""),
    "seal of its own": lambda folder: (folder / "graphs" / "con.bin").write_bytes(b""),
    "missing graph": lambda folder: (folder / "graphs/encoder.onnx").unlink(),
    "missing weights": lambda folder: (folder / "graphs/encoder.bin").unlink(),
    "missing asset": lambda folder: (folder / "assets/tokenizer.json").unlink(),
    "missing golden sample": lambda folder: shutil.rmtree(folder / "golden"),
    "truncated weights": lambda folder: os.truncate(folder / "graphs/encoder.bin", 100),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_a_reader_would_refuse_is_never_put_in_place(mistake, tmp_path, workshop):
    with pytest.raises(BundleError), new_bundle(tmp_path / "out") as draft:
        workshop.put_files(draft.folder)
        MISTAKES[mistake](draft.folder)
        draft.finish(workshop.manifest)
    assert os.listdir(tmp_path) == []


def test_a_number_that_is_none_is_never_put_in_place(tmp_path, workshop):
    with pytest.raises(BundleError, match="preprocess_max_abs"), new_bundle(tmp_path / "out") as draft:
        workshop.put_files(draft.folder)
        draft.finish(msgspec.structs.replace(workshop.manifest, preprocess_max_abs=float("nan")))
    assert os.listdir(tmp_path) == []


def test_an_existing_bundle_is_refused_before_the_work_starts(tmp_path, workshop, tree):
    workshop.write(tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match="exists already") as refusal, new_bundle(tmp_path / "out"):
        raise AssertionError("the work started")
    assert refusal.value.hint == "replace it with --force"
    assert tree(tmp_path) == before


def test_force_replaces_an_existing_bundle_at_the_last_moment(tmp_path, workshop):
    old = workshop.write(tmp_path / "out", title="old")
    with new_bundle(tmp_path / "out", force=True) as draft:
        workshop.put_files(draft.folder)
        old.verify()
        draft.finish(msgspec.structs.replace(workshop.manifest, title="new"))
        assert open_bundle(tmp_path / "out").manifest.title == "new"
    open_bundle(tmp_path / "out").verify()
    assert os.listdir(tmp_path) == ["out"]


def test_force_keeps_the_old_bundle_if_the_new_one_fails(tmp_path, workshop, tree):
    workshop.write(tmp_path / "out")
    before = tree(tmp_path)
    with pytest.raises(ValueError), new_bundle(tmp_path / "out", force=True) as draft:
        workshop.put_files(draft.folder)
        raise ValueError
    assert tree(tmp_path) == before


def test_force_replaces_a_bundle_with_damaged_files(tmp_path, workshop):
    (workshop.write(tmp_path / "out").path / "graphs/encoder.bin").write_bytes(b"")
    workshop.write(tmp_path / "out", force=True).verify()


def test_force_never_removes_a_folder_that_is_no_bundle(tmp_path, workshop, tree):
    for files in (["thesis.tex"], [MANIFEST], [MANIFEST, "manifest.sha256"]):
        (tmp_path / "home").mkdir()
        for name in files:
            (tmp_path / "home" / name).write_text('{"name": "somebody else\'s"}')
        before = tree(tmp_path)
        with pytest.raises(UsageError, match="does not look like a bundle"), new_bundle(tmp_path / "home", force=True):
            raise AssertionError("the work started")
        assert tree(tmp_path) == before
        shutil.rmtree(tmp_path / "home")


def test_force_takes_an_empty_folder(tmp_path, workshop):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        workshop.write(tmp_path / "out")
    workshop.write(tmp_path / "out", force=True).verify()
    assert os.listdir(tmp_path) == ["out"]


def test_a_bundle_that_appears_meanwhile_is_not_replaced(tmp_path, workshop, pristine, tree):
    with pytest.raises(UsageError, match="exists already"), new_bundle(tmp_path / "out") as draft:
        workshop.put_files(draft.folder)
        shutil.copytree(pristine, tmp_path / "out")
        draft.finish(msgspec.structs.replace(workshop.manifest, title="late"))
    assert tree(tmp_path / "out") == tree(pristine)
    assert os.listdir(tmp_path) == ["out"]


def without_exchange(monkeypatch, number):
    """As on a file system that cannot swap two folders in one step."""

    class Library:
        @staticmethod
        def renameat2(*_):
            return -1

    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: Library if number else object())
    monkeypatch.setattr("ctypes.get_errno", lambda: number)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, 0])
def test_a_bundle_is_also_replaced_where_folders_cannot_be_swapped(number, tmp_path, workshop, monkeypatch):
    workshop.write(tmp_path / "out", title="old")
    without_exchange(monkeypatch, number)
    assert workshop.write(tmp_path / "out", title="new", force=True).manifest.title == "new"
    open_bundle(tmp_path / "out").verify()
    assert os.listdir(tmp_path) == ["out"]


def test_a_refused_swap_keeps_the_old_bundle(tmp_path, workshop, monkeypatch, tree):
    workshop.write(tmp_path / "out", title="old")
    before = tree(tmp_path)
    without_exchange(monkeypatch, errno.EIO)
    with pytest.raises(ResourceError):
        workshop.write(tmp_path / "out", title="new", force=True)
    assert tree(tmp_path) == before


def test_a_bundle_moved_aside_by_a_dead_writer_is_put_back(tmp_path, workshop, tree):
    workshop.write(tmp_path / "out", title="old")
    before = tree(tmp_path)
    (tmp_path / "out").rename(tmp_path / "out.old-123-0123abcd")
    (tmp_path / "out.tmp-123-0123abcd").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        workshop.write(tmp_path / "out", title="new")
    assert tree(tmp_path) == before


def test_only_leftovers_of_the_same_bundle_are_removed(tmp_path, workshop):
    kept = [
        "other.tmp-123-0123abcd",
        "out.tmp",
        "out.tmp-123-0123abcd.bak",
        "out.tmp-x-0123abcd",
        "xout.old-1-0123abcd",
    ]
    for name in [*kept, "out.tmp-123-0123abcd"]:
        (tmp_path / name / "full").mkdir(parents=True)
    workshop.write(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "out"])


def test_the_disk_forgetting_the_rename_undoes_it(tmp_path, workshop, monkeypatch, tree):
    def fail(folder):
        if folder == tmp_path:
            raise OSError(errno.EIO, "Input/output error", str(folder))

    monkeypatch.setattr(writing, "_sync_folder", fail)
    with pytest.raises(ResourceError, match="Input/output error"):
        workshop.write(tmp_path / "out")
    assert os.listdir(tmp_path) == []
    monkeypatch.undo()
    workshop.write(tmp_path / "out", title="old")
    before = tree(tmp_path)
    monkeypatch.setattr(writing, "_sync_folder", fail)
    with pytest.raises(ResourceError, match="Input/output error"):
        workshop.write(tmp_path / "out", title="new", force=True)
    assert tree(tmp_path) == before


def source_is_target(folder):
    return {"path": folder / "checkpoint", "source": folder / "checkpoint"}


def source_through_a_link(folder):
    (folder / "link").symlink_to("checkpoint")
    return {"path": folder / "checkpoint/out", "source": folder / "link"}


def link_in_place(folder):
    (folder / "out").symlink_to("checkpoint")
    return {"path": folder / "out"}


def dangling_link_in_place(folder):
    (folder / "out").symlink_to("nowhere")
    return {"path": folder / "out"}


REFUSALS = {
    "no parent": lambda folder: {"path": folder / "missing" / "out"},
    "parent is a file": lambda folder: {"path": folder / "file" / "out"},
    "target is a file": lambda folder: {"path": folder / "file"},
    "target is a link": link_in_place,
    "target is a dangling link": dangling_link_in_place,
    "target is the root": lambda folder: {"path": Path("/")},
    "target is the source": source_is_target,
    "target inside the source": lambda folder: {"path": folder / "checkpoint/out", "source": folder / "checkpoint"},
    "target inside the source, through a link": source_through_a_link,
    "target inside the source, through dots": lambda folder: {
        "path": folder / "checkpoint/sub/../out",
        "source": folder / "checkpoint",
    },
    "source inside the target": lambda folder: {"path": folder, "source": folder / "checkpoint"},
    "name too long": lambda folder: {"path": folder / ("x" * 240)},
    "name of the parent too long": lambda folder: {"path": folder / ("x" * 300) / "out"},
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("case", REFUSALS)
def test_a_target_that_cannot_be_is_refused_before_the_work_starts(case, force, tmp_path, tree):
    (tmp_path / "checkpoint/sub").mkdir(parents=True)
    (tmp_path / "checkpoint/model.safetensors").write_bytes(b"weights")
    (tmp_path / "file").write_bytes(b"content")
    arguments = REFUSALS[case](tmp_path)
    before = tree(tmp_path)
    with pytest.raises(UsageError) as refusal, new_bundle(**arguments, force=force):
        raise AssertionError("the work started")
    assert arguments["path"].name in refusal.value.message
    assert tree(tmp_path) == before


def test_force_does_not_replace_a_link_to_a_bundle(tmp_path, pristine):
    (tmp_path / "out").symlink_to(pristine)
    with pytest.raises(UsageError, match="file or a link"), new_bundle(tmp_path / "out", force=True):
        raise AssertionError("the work started")
    assert os.readlink(tmp_path / "out") == str(pristine)


def test_force_does_not_replace_a_bundle_that_contains_the_checkpoint(spoiled):
    (spoiled / "checkpoint").mkdir()
    arguments = {"path": spoiled, "source": spoiled / "checkpoint", "force": True}
    with pytest.raises(UsageError, match="overwrite the checkpoint"), new_bundle(**arguments):
        raise AssertionError("the work started")


def test_the_longest_name_that_is_not_refused_works(tmp_path, workshop):
    longest = next(length for length in range(255, 0, -1) if not is_refused(tmp_path / ("x" * length)))
    assert 200 < longest < 255
    workshop.write(tmp_path / ("x" * longest)).verify()


def is_refused(path):
    try:
        with new_bundle(path):
            return False
    except UsageError:
        return True


def test_a_relative_path_with_spaces_and_accents_works(tmp_path, workshop, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workshop.write(Path("m\u00fcde K\u00fche")).verify()
    assert os.listdir(tmp_path) == ["m\u00fcde K\u00fche"]


def complain(task, report):
    """Run ``task`` and keep the message of its error for the parent."""
    try:
        task()
    except MmedgeError as error:
        report.write_text(error.message)
        raise


def test_a_folder_without_permission_is_refused(workshop, in_child):
    with tempfile.TemporaryDirectory() as folder:  # which others may enter, unlike `tmp_path`
        os.chmod(folder, 0o755)
        (closed := Path(folder) / "closed").mkdir(mode=0o555)
        (report := Path(folder) / "report").touch()
        report.chmod(0o666)

        def task():
            if os.getuid() == 0:  # to whom nothing is forbidden
                os.setuid(65534)
            complain(lambda: workshop.write(closed / "out"), report)

        assert in_child(task) == ResourceError.exit_code
        assert report.read_text() == f"cannot write in `{closed}`: Permission denied (out.lock)"


def test_a_read_only_disk_is_refused(tmp_path, workshop, in_namespace, mount_tmpfs):
    (tmp_path / "disk").mkdir()

    def task():
        mount_tmpfs(tmp_path / "disk", "size=1m", read_only=True)
        complain(lambda: workshop.write(tmp_path / "disk/out"), tmp_path / "report")

    assert in_namespace(task) == ResourceError.exit_code
    assert (tmp_path / "report").read_text() == f"cannot write in `{tmp_path}/disk`: Read-only file system (out.lock)"


def test_too_little_space_is_refused_with_both_numbers(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path / "out", free // 2)
    with pytest.raises(
        ResourceError, match=r"out` needs [0-9]+\.[0-9] MiB, [0-9]+\.[0-9] MiB are free there"
    ) as refusal:
        check_space(tmp_path / "not/yet/there/out", int(free / 1.1))
    assert str(tmp_path) in refusal.value.message


def test_a_disk_error_outside_the_disk_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), new_bundle(tmp_path / "out"):
        (tmp_path / "missing").read_bytes()
    with pytest.raises(OSError, match="no number"), new_bundle(tmp_path / "out"):
        raise OSError("no number")


def test_a_full_disk_is_recognised_through_a_library_that_hides_it(tmp_path, in_namespace, mount_tmpfs):
    (tmp_path / "disk").mkdir()

    def task():
        mount_tmpfs(tmp_path / "disk", "size=64k")
        with new_bundle(tmp_path / "disk/out") as draft, (draft.folder / "weights").open("wb") as file:
            np.zeros(MIB, np.float32).tofile(file)

    assert in_namespace(task) == ResourceError.exit_code


def test_writing_needs_neither_onnx_nor_an_engine():
    assert "mmedge.core.writing" in sys.modules
    for name in ("writing", "place", "bundle", "onnx_file", "files", "lock", "manifest"):
        assert "import onnx" not in Path(writing.__file__).with_name(f"{name}.py").read_text()
