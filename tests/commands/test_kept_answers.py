import json
import os

import pytest

from mmedge.commands._kept_answers import keep_answers
from mmedge.errors import BusyError, UsageError

ABOUT = {"digest": "d1", "task": "caption", "prompt": None}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.jsonl"


def kept(path, *pictures: str, resume: bool = False, **about) -> set[str]:
    """Adds answers for these; the pictures that were answered before."""
    with keep_answers(path, ABOUT | about, resume=resume) as answers:
        for picture in pictures:
            answers.add(picture, {"text": "a star"})
        return answers.known


def pictures_of(path) -> list[str]:
    return [json.loads(line)["picture"] for line in path.read_text().splitlines()]


def test_a_line_says_what_was_asked_of_which_picture_and_what_was_answered(path):
    kept(path, "a.png")
    assert json.loads(path.read_text()) == {"picture": "a.png", **ABOUT, "text": "a star"}


def test_a_line_is_in_the_file_as_soon_as_it_is_added(path):
    with keep_answers(path, ABOUT, resume=False) as answers:
        answers.add("a.png", {})
        assert pictures_of(path) == ["a.png"]


def test_answers_are_added_behind_those_before(path):
    kept(path, "a.png", "b.png")
    assert kept(path, "c.png", resume=True) == {"a.png", "b.png"}
    assert pictures_of(path) == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("other", [{"digest": "d2"}, {"task": "ask"}, {"prompt": "the"}], ids=str)
def test_answers_of_another_bundle_or_to_another_text_do_not_count(path, other):
    kept(path, "a.png", **other)
    assert kept(path, resume=True) == set()
    assert kept(path, resume=True, **other) == {"a.png"}


def test_a_file_that_is_there_is_added_to_only_if_that_is_asked_for(path):
    kept(path, "a.png")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        kept(path, "b.png")
    assert path.read_bytes() == before
    path.write_bytes(b"")
    kept(path, "b.png")


def test_a_line_torn_anywhere_is_cut_off_and_answered_again(path):
    kept(path, "a.png", "b.png")
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        assert kept(path, "b.png", resume=True) == {"a.png"}
        assert path.read_bytes() == whole


def test_zeros_that_a_crash_leaves_are_cut_off(path):
    kept(path, "a.png")
    path.write_bytes(path.read_bytes() + b'{"pic' + b"\0" * 100)
    assert kept(path, "b.png", resume=True) == {"a.png"}
    assert pictures_of(path) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("content", "number"),
    [(b"dear diary", 1), (b"dear diary\n", 1), (b"\n", 1), (b'{"picture":"a"}\n', 1), (b"\xff\n", 1), (b"[1]", 1)],
    ids=repr,
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(path, content, number):
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"line {number} is no answer of mmedge"):
        kept(path, "a.png", resume=True)
    assert path.read_bytes() == content


def test_two_processes_do_not_add_to_one_file(path):
    with keep_answers(path, ABOUT, resume=False), pytest.raises(BusyError, match=str(os.getpid())):
        kept(path, "a.png", resume=True)
    assert os.listdir(path.parent) == [path.name]


def test_a_folder_is_no_place_for_answers(tmp_path):
    with pytest.raises(UsageError, match="it is a folder"):
        kept(tmp_path)


def test_answers_about_other_frames_of_a_video_are_not_taken_for_this_one(path):
    kept(path, "walk.gif", frames=None)
    assert kept(path, resume=True, frames=None) == {"walk.gif"}
    assert kept(path, resume=True, frames=8) == set()
