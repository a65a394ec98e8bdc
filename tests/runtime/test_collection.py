import os
from pathlib import Path

import pytest

from mmedge.errors import InputError, UsageError
from mmedge.runtime.collection import Found, gone, items_of

BOTH = ("image", "text")


def refuse(name: str, error: InputError) -> None:
    raise error


def found(*sources: Path, modalities: tuple[str, ...] = BOTH) -> list[Found]:
    return items_of(sources, modalities, refuse)


def names(*sources: Path) -> list[str]:
    return [each.item.name for each in found(*sources)]


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt", "film.mov", ".hidden.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"x")
    return tmp_path / "photos"


@pytest.fixture
def closed(folder, monkeypatch):
    """The folder `deep` cannot be looked into, not even by root."""
    walk = os.walk

    def refusing(top, onerror):
        for root, folders, files in walk(top):
            if Path(root).name == "deep":
                onerror(PermissionError(13, "Permission denied", root))
            else:
                yield root, folders, files

    monkeypatch.setattr(os, "walk", refusing)
    return folder / "deep"


def test_of_a_folder_pictures_are_found_at_any_depth_in_order(folder):
    assert names(folder) == [str(folder / name) for name in ("a.JPG", "b.png", "deep/c.webp")]


def test_names_are_the_same_wherever_they_are_asked_for(folder, monkeypatch):
    before = names(folder)
    monkeypatch.chdir(folder / "deep")
    assert names(Path("..")) == before
    assert names(Path("../b.png")) == [str(folder / "b.png")]


def test_what_is_in_several_sources_counts_once(folder):
    assert names(folder, folder / "b.png", folder / "deep") == names(folder)


def test_every_line_of_a_text_file_is_a_text_of_that_file_and_each_counts_once(tmp_path):
    (tmp_path / "texts.txt").write_text("a cat\n\n  ein Käse \na cat\n", "utf-8")
    items = [each.item for each in found(tmp_path / "texts.txt")]
    assert [(item.name, item.modality) for item in items] == [("a cat", "text"), ("ein Käse", "text")]
    assert {item.state for item in items} == {str(tmp_path / "texts.txt")}


def test_a_file_that_changed_is_told_by_its_state(folder):
    (before,) = found(folder / "b.png")
    (folder / "b.png").write_bytes(b"more")
    (after,) = found(folder / "b.png")
    assert before.key == after.key and before.item.state != after.item.state


def test_a_file_whose_name_is_no_text_can_be_read(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"\xff.png")
    with open(path, "wb") as file:
        file.write(b"x")
    (each,) = found(tmp_path)
    assert each.item.name == f"{tmp_path}/\\xff.png"
    assert Path(each.source).read_bytes() == b"x"


def test_a_source_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="there is no file or folder"):
        found(tmp_path / "none")


def test_a_file_of_another_kind_is_refused_with_those_that_are_read(folder):
    with pytest.raises(UsageError, match="is nothing that this bundle embeds") as caught:
        found(folder / "notes.txt", modalities=("image",))
    assert ".jpg" in caught.value.hint and ".txt" not in caught.value.hint


def test_texts_have_to_be_unicode(tmp_path):
    (tmp_path / "texts.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        found(tmp_path / "texts.txt")


def test_a_folder_that_cannot_be_looked_into_is_refused_by_name(folder, closed):
    with pytest.raises(InputError, match=f"cannot look at `{closed}`: permission denied"):
        found(folder)


def test_a_link_to_nothing_is_refused_by_name(folder):
    (folder / "link.png").symlink_to(folder / "nothing.png")
    with pytest.raises(InputError, match=r"cannot look at `.*link\.png`: no such file"):
        found(folder)


def test_what_lies_in_a_folder_that_was_passed_over_is_not_gone(folder, closed):
    unseen: list[str] = []
    seen = items_of([folder], BOTH, lambda name, error: unseen.append(name))
    assert unseen == [str(closed)] and [Path(each.source).name for each in seen] == ["a.JPG", "b.png"]
    known = {(str(folder / name), "image"): "1" for name in ("a.JPG", "lost.png", "deep/c.webp")}
    assert gone(known, {each.key for each in seen}, [folder], unseen) == [(str(folder / "lost.png"), "image")]


def test_only_files_of_the_sources_are_missed(folder, monkeypatch):
    lost = (str(folder / "lost.png"), "image")
    monkeypatch.chdir(folder.parent)
    for source in (folder, Path("photos"), Path("./photos/../photos/"), folder / "lost.png", Path("/")):
        assert gone({lost: "1"}, (), [source], ()) == [lost]
    for source in (folder / "deep", Path("photo"), folder / "b.png"):
        assert gone({lost: "1"}, (), [source], ()) == []


def test_a_line_is_missed_in_its_own_file_only(folder):
    line = {("a cat", "text"): str(folder / "notes.txt")}
    assert gone(line, (), [folder / "notes.txt"], ()) == [("a cat", "text")]
    assert gone(line, (), [folder, folder / "other.txt"], ()) == []
