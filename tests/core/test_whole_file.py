import os

import pytest

from mmedge.core.whole_file import write_whole
from mmedge.errors import UsageError


def test_a_file_is_replaced_and_no_draft_is_left(tmp_path):
    path = tmp_path / "run.json"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["run.json"]


def test_what_was_there_stays_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError, match="disk"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["run.json"]


def _full(descriptor):
    raise OSError(28, "the disk is full")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.symlink_to("elsewhere.json"), "it is a link"),
        (lambda path: path.mkdir(), "it is a folder"),
        (os.mkfifo, "neither a file nor a folder"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path, make, reason):
    make(tmp_path / "run.json")
    with pytest.raises(UsageError, match=reason):
        write_whole(tmp_path / "run.json", b"new")
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match="there is no folder") as caught:
        write_whole(tmp_path / "none" / "run.json", b"")
    assert "mkdir -p" in caught.value.hint


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no folder"):
        write_whole(tmp_path / "file" / "run.json", b"")


def test_a_name_that_leaves_no_room_for_a_draft_is_refused(tmp_path):
    with pytest.raises(UsageError, match="its name has more than 246 bytes"):
        write_whole(tmp_path / ("n" * 250), b"")
