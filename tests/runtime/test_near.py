import shutil
import sys

import numpy as np
import pytest

from mmedge.errors import BackendError, ResourceError, UsageError
from mmedge.runtime import near as module
from mmedge.runtime.index import STATE, About, Item, make_index, open_index
from mmedge.runtime.made_here import remember
from mmedge.runtime.near import NOTE, bring_up_to_date, check_near, drop_near, has_own, near_file, open_near
from mmedge.runtime.vectors import PRECISIONS, nearest

pytest.importorskip("usearch")
WIDTH, MANY = 32, 600


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Around a few centres, as what means something is."""
    chance = np.random.default_rng(seed)
    drawn = chance.normal(size=(12, WIDTH))[chance.integers(0, 12, count)] + chance.normal(size=(count, WIDTH)) / 2
    return (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).astype(np.float32)


def items(count: int, begin: int = 0) -> list[Item]:
    return [Item(f"{number}.png", "image", "1") for number in range(begin, begin + count)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("MMEDGE_READY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=PRECISIONS)
def path(request, tmp_path):
    path = tmp_path / "photos.index"
    with make_index(path, About("a" * 64, "", WIDTH, request.param)) as made:
        made.add(items(MANY), rows(MANY))
        assert bring_up_to_date(made) > 0.95
    return path


def names(index, found) -> set[str]:
    return {item.name for item in index.items([number for number, _ in found])}


def test_nearly_all_of_the_nearest_are_found(path):
    with open_index(path) as index:
        every, vectors = index.read()
        shares = []
        for query in rows(40, seed=1):
            want = {every[place].name for place, _ in nearest(vectors, query, 10)}
            shares.append(len(want & names(index, open_near(index).find(query, 10))) / 10)
    assert np.mean(shares) > 0.9


def test_cosines_are_those_of_the_exact_search(path):
    with open_index(path) as index:
        _, vectors = index.read()
        found = open_near(index).find(vectors[7], 3)
        assert names(index, found[:1]) == {"7.png"}
        assert [cosine for _, cosine in found] == pytest.approx(
            [cosine for _, cosine in nearest(vectors, vectors[7], 3)], abs=0.02
        )


@pytest.mark.parametrize(
    "change", [lambda made: made.add(items(1, MANY), rows(1)), lambda made: made.remove([("3.png", "image")])]
)
def test_a_graph_of_other_items_is_not_used_until_it_is_brought_up_to_date(path, change):
    with open_index(path) as index:
        about = index.about
    with make_index(path, about) as made:
        change(made)
        assert open_near(made) is None
        bring_up_to_date(made)
        assert len(open_near(made).find(rows(1)[0], 5)) == 5


def test_only_what_is_new_is_added(path):
    with open_index(path) as index:
        about = index.about
    with make_index(path, about) as made:
        made.add(items(5, MANY), rows(5, seed=3))
        made.remove([("0.png", "image")])
        heard = []
        bring_up_to_date(made, heard.append)
        assert len(heard) == 5
        _, vectors = made.read()
        assert "0.png" not in names(made, open_near(made).find(rows(1)[0], 50))
        assert names(made, open_near(made).find(vectors[-1], 1)) == {f"{MANY + 4}.png"}


def add(path, *added: Item, precision: str = "float16", seed: int = 4) -> list[str]:
    """What is told while the graph of an index is brought up to date."""
    heard: list[str] = []
    with make_index(path, About("a" * 64, "", WIDTH, precision), as_it_is=True) as made:
        made.add(added, rows(len(added), seed))
        bring_up_to_date(made, heard.append)
    return heard


def spoil(path):
    data = bytearray(near_file(path).read_bytes())
    data[len(data) // 2] ^= 255
    near_file(path).write_bytes(data)


def shorten(path):
    near_file(path).write_bytes(near_file(path).read_bytes()[:-1000])


def copy(path):
    """The same bytes, as they come from elsewhere."""
    shutil.copy(near_file(path), path.with_name("copy"))
    path.with_name("copy").replace(near_file(path))


@pytest.mark.parametrize("change", [spoil, shorten, copy])
def test_a_graph_that_was_not_written_here_is_never_opened_and_is_made_again(path, change, monkeypatch):
    change(path)
    with monkeypatch.context() as watched, open_index(path) as index:
        watched.setattr(module, "_opened", lambda path, view: pytest.fail("it was opened"))
        assert open_near(index) is None
    assert len(add(path)) == MANY
    with open_index(path) as index:
        assert open_near(index).find(rows(1)[0], 5)


def test_a_graph_that_cannot_be_read_is_made_again(path):
    near_file(path).write_bytes(b"garbage" * 100)
    with open_index(path) as index:
        remember(near_file(path), index.noted(NOTE), 1.0)
        assert open_near(index) is None
    assert len(add(path, *items(1, MANY))) == MANY + 1


def test_an_older_index_that_was_put_back_does_not_get_the_items_of_a_newer_graph(path):
    shutil.copy(path, path.with_name("older"))
    assert len(add(path, *items(5, MANY))) == 5
    path.with_name("older").replace(path)
    assert len(add(path, *items(5, MANY + 100), seed=8)) == MANY + 5


def test_a_new_index_of_the_same_name_does_not_get_the_graph_of_the_old_one(path):
    path.unlink()
    with make_index(path, About("a" * 64, "", WIDTH, "float16")) as made:
        made.add(items(MANY), rows(MANY, seed=5))
        assert open_near(made) is None and not has_own(made)


def test_where_nothing_changed_nothing_is_written_or_measured_again(path, monkeypatch):
    before = near_file(path).stat()
    monkeypatch.setattr(module, "_recall", lambda index, near: pytest.fail("it was measured"))
    assert add(path) == []
    assert near_file(path).stat() == before


def test_a_graph_is_searched_as_widely_from_its_file_as_when_it_was_made(path):
    with open_index(path) as index:
        assert open_near(index)._graph.expansion_search == module.SEARCHED


def test_what_is_told_of_a_graph_is_measured_as_it_is_opened_and_without_the_item_itself(tmp_path, monkeypatch):
    class Blind:
        """Finds nothing but the very thing that is looked for."""

        def __init__(self, graph):
            self.graph = graph

        def find(self, query, count):
            with pytest.raises(RuntimeError, match="immutable"):  # it is mapped from its file
                self.graph.add(np.array([MANY], np.uint64), query[None])
            (key,) = self.graph.search(query, 1, exact=True).keys
            return [(int(key), 1.0)]

    monkeypatch.setattr(module, "Near", Blind)
    with make_index(tmp_path / "index", About("a" * 64, "", WIDTH, "float32")) as made:
        made.add(items(50), rows(50))
        assert bring_up_to_date(made) == 0.0


def test_what_is_at_the_place_of_a_graph_and_is_none_is_refused_and_kept(tmp_path):
    path = tmp_path / "index"
    with make_index(path, About("a" * 64, "", WIDTH, "float16")) as made:
        near_file(path).write_bytes(b"mine")
        for refused in (check_near, bring_up_to_date):
            with pytest.raises(UsageError, match="is there, and is not of this index"):
                refused(made)
        drop_near(made)
        assert near_file(path).read_bytes() == b"mine"
        near_file(path).unlink()
        near_file(path).mkdir()
        with pytest.raises(UsageError, match="it is a folder"):
            check_near(made)


def test_an_index_that_took_the_place_of_a_graph_is_kept(path):
    near_file(path).unlink()
    with make_index(near_file(path), About("a" * 64, "", WIDTH, "float16")):
        pass
    with make_index(path, About("a" * 64, "", WIDTH, "float16"), as_it_is=True) as made:
        with pytest.raises(UsageError, match="is not of this index"):
            check_near(made)
        drop_near(made)
    assert near_file(path).exists()


def test_a_graph_that_is_dropped_is_gone_for_good(path, cache):
    with make_index(path, About("a" * 64, "", WIDTH, "float16"), as_it_is=True) as made:
        drop_near(made)
        assert not near_file(path).exists() and not has_own(made) and not list((cache / "mmedge/near").iterdir())
        near_file(path).write_bytes(b"mine")
        drop_near(made)
    assert near_file(path).exists()


def test_without_a_place_for_notes_there_is_no_graph(tmp_path, cache):
    cache.write_text("no folder")
    with (
        make_index(tmp_path / "index", About("a" * 64, "", WIDTH, "float16")) as made,
        pytest.raises(ResourceError, match="cannot keep notes in"),
    ):
        check_near(made)


def test_a_graph_needs_usearch(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with open_index(path) as index, pytest.raises(BackendError, match="is not installed"):
        open_near(index)


def test_a_graph_of_a_state_that_passed_is_not_used(path):
    with make_index(path, About("a" * 64, "", WIDTH, "float16"), as_it_is=True) as made:
        made.note(STATE, "another")
        assert open_near(made) is None and has_own(made)


def test_without_a_graph_there_is_none(path):
    near_file(path).unlink()
    with open_index(path) as index:
        assert open_near(index) is None


def test_nothing_has_a_graph_too(tmp_path):
    with make_index(tmp_path / "index", About("a" * 64, "", WIDTH, "float16")) as made:
        assert bring_up_to_date(made) == 1.0
        assert open_near(made).find(rows(1)[0], 5) == []
