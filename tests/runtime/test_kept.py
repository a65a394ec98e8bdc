"""Whose compiled graphs are believed, and where they can be kept."""

import os

import msgspec
import pytest

from mmedge.errors import ResourceError
from mmedge.runtime import kept
from mmedge.runtime.owned import stamp_of

STRANGER = 12345
MADE_FOR = {"device": "this"}
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def make(draft):
    (draft / "engine").write_text("plan")
    return draft / "engine"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "small.bundle.ready"
    place.mkdir()
    return kept.store(place / "tower", MADE_FOR, make).parent


@only_root
@pytest.mark.parametrize("whose", ["place", "folder", "engine", "made.json"])
def test_what_another_user_of_the_machine_owns_is_not_believed(whose, folder):
    path = {"place": folder.parent, "folder": folder}.get(whose, folder / whose)
    os.chown(path, STRANGER, -1)
    if whose == "engine":  # as if the stranger had written the record too
        record = msgspec.json.decode((folder / "made.json").read_bytes(), type=kept.Record)
        record.files["engine"] = stamp_of(path)
        (folder / "made.json").write_bytes(msgspec.json.encode(record))
    assert kept.stored(folder, MADE_FOR) is None


def test_what_this_user_made_is_believed(folder):
    assert kept.stored(folder, MADE_FOR) == folder / "engine"


@only_root
def test_a_refusal_and_a_check_of_another_user_count_for_nothing(folder):
    kept.refuse(folder, kept.Refusal("no", False))
    kept.mark_replayed(folder)
    assert kept.refusal(folder) and kept.was_replayed(folder)
    for path in (folder.with_name("tower.refused"), folder / "replayed"):
        os.chown(path, STRANGER, -1)
    assert kept.refusal(folder) is None and not kept.was_replayed(folder)


@only_root
@pytest.mark.parametrize("whose", ["shared.json", "timings"])
def test_what_another_user_measured_is_not_read(whose, tmp_path):
    place = tmp_path / "small.bundle.ready"
    place.mkdir()

    def measure(draft):
        (draft.parent / "timings").write_text("measured")
        return make(draft)

    kept.store(place / "tower", MADE_FOR, measure)
    os.chown(place / whose, STRANGER, -1)
    if whose == "timings":  # as if root had noted it as it is now
        kept._remember_shared(place)
    kept._drop_strangers(place)
    assert not (place / "timings").exists()


@only_root
def test_a_place_of_another_user_is_left_to_them(small_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = small_bundle()
    beside, cache = kept.places(bundle)
    beside.mkdir()
    os.chown(beside, STRANGER, -1)
    assert not kept.usable(beside) and kept.usable(cache)
    with kept.place_to_write(bundle) as place:
        assert place == cache
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    with pytest.raises(ResourceError, match="belongs to another user"), kept.place_to_write(bundle):
        pass


def test_a_file_in_the_way_is_no_place_and_no_obstacle(folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert not kept.usable(tmp_path / "file") and kept.usable(tmp_path / "none")
    kept.forgive(tmp_path / "file" / "tower")
    assert kept.refusal(tmp_path / "file" / "tower") is None
