import os
import shutil

import pytest

from mmedge.errors import ResourceError
from mmedge.runtime.made_here import forget, remember, remembered


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.delenv("MMEDGE_READY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "graph").write_bytes(b"as it was made")
    remember(tmp_path / "graph", "these items", 0.9)
    return tmp_path / "graph"


def test_what_was_noted_is_remembered_however_the_file_is_named(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    path.with_name("link").symlink_to(path.parent)
    for name in (path, path.relative_to(path.parent), path.with_name("link") / "graph"):
        made = remembered(name)
        assert made and (made.of, made.recall) == ("these items", 0.9)


def edit(path):
    path.write_bytes(b"as it was MADE")


def edit_and_hide_it(path):
    times = path.stat()
    edit(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def put_a_copy(path):
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def remove(path):
    path.unlink()


@pytest.mark.parametrize("change", [edit, edit_and_hide_it, put_a_copy, remove, forget])
def test_a_file_that_is_not_the_one_that_was_made_is_not_believed(path, change):
    change(path)
    assert remembered(path) is None


def test_a_copy_elsewhere_is_not_believed(path):
    shutil.copy2(path, path.with_name("copy"))
    assert remembered(path.with_name("copy")) is None


def test_a_note_that_makes_no_sense_is_none(path):
    (note,) = (path.parent / "cache" / "mmedge" / "near").iterdir()
    note.write_bytes(b"{}")
    assert remembered(path) is None


def test_notes_are_kept_in_the_folder_that_is_chosen_for_what_is_compiled(path, tmp_path, monkeypatch):
    monkeypatch.setenv("MMEDGE_READY", str(tmp_path / "chosen"))
    assert remembered(path) is None
    remember(path, "these items", 1.0)
    assert remembered(path) and len(list((tmp_path / "chosen" / "near").iterdir())) == 1


def test_a_cache_folder_that_is_none_is_told_of(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="cannot keep notes in") as caught:
        remember(path, "these items", 1.0)
    assert "XDG_CACHE_HOME" in caught.value.hint and remembered(path) is None
