import numpy as np
import pytest

from mmedge.runtime.index import PRECISIONS, About, Item, make_index, nearest, open_index
from mmedge.runtime.near import bring_up_to_date, near_file, open_near

pytest.importorskip("usearch")
WIDTH, MANY = 32, 600


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Around a few centres, as what means something is."""
    chance = np.random.default_rng(seed)
    drawn = chance.normal(size=(12, WIDTH))[chance.integers(0, 12, count)] + chance.normal(size=(count, WIDTH)) / 2
    return (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).astype(np.float32)


def items(count: int, begin: int = 0) -> list[Item]:
    return [Item(f"{number}.png", "image", "1") for number in range(begin, begin + count)]


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


def test_a_graph_that_was_changed_by_others_is_not_used_and_is_made_again(path):
    data = bytearray(near_file(path).read_bytes())
    data[len(data) // 2] ^= 255
    near_file(path).write_bytes(data)
    with open_index(path) as index:
        about = index.about
        assert open_near(index) is None
    with make_index(path, about) as made:
        heard = []
        bring_up_to_date(made, heard.append)
        assert len(heard) == MANY and open_near(made).find(rows(1)[0], 5)


def test_without_a_graph_there_is_none(path):
    near_file(path).unlink()
    with open_index(path) as index:
        assert open_near(index) is None


def test_nothing_has_a_graph_too(tmp_path):
    with make_index(tmp_path / "index", About("a" * 64, "", WIDTH, "float16")) as made:
        assert bring_up_to_date(made) == 1.0
        assert open_near(made).find(rows(1)[0], 5) == []
