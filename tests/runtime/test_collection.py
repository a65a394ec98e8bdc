import pytest

from mmedge.errors import InputError, UsageError
from mmedge.runtime.collection import items_of, lies_in

BOTH = ("image", "text")


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt", "film.mov"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"x")
    return tmp_path / "photos"


def test_of_a_folder_pictures_are_found_at_any_depth_in_order(folder):
    names = [item.name for item in items_of([folder], BOTH)]
    assert names == [str(folder / name) for name in ("a.JPG", "b.png", "deep/c.webp")]


def test_every_line_of_a_text_file_is_a_text_and_each_counts_once(tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\n\n  ein Käse \na cat\n", "utf-8")
    assert [(item.name, item.modality) for item in items_of([tmp_path / "texts.txt"], BOTH)] == [
        ("a cat", "text"),
        ("ein Käse", "text"),
    ]


def test_a_file_that_changed_is_told_by_its_state(folder):
    (before,) = items_of([folder / "b.png"], BOTH)
    (folder / "b.png").write_bytes(b"more")
    (after,) = items_of([folder / "b.png"], BOTH)
    assert before.name == after.name and before.state != after.state


def test_a_source_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="there is no file or folder"):
        list(items_of([tmp_path / "none"], BOTH))


def test_a_file_of_another_kind_is_refused_with_those_that_are_read(folder):
    with pytest.raises(UsageError, match="is nothing that this bundle embeds") as caught:
        list(items_of([folder / "notes.txt"], ("image",)))
    assert ".jpg" in caught.value.hint and ".txt" not in caught.value.hint


def test_texts_have_to_be_unicode(tmp_path):
    (tmp_path / "texts.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        list(items_of([tmp_path / "texts.txt"], BOTH))


def test_only_files_of_the_sources_are_missed(folder):
    assert lies_in((str(folder / "gone.png"), "image"), [folder])
    assert not lies_in(("/elsewhere/gone.png", "image"), [folder])
    assert not lies_in((str(folder / "a line"), "text"), [folder])
