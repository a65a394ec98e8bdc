import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from contextlib import closing

import numpy as np
import pytest

from mmedge.errors import BundleError, BusyError, ResourceError, UsageError
from mmedge.runtime import index as module
from mmedge.runtime.index import STATE, About, Item, check_bundle, make_index, open_index
from mmedge.runtime.vectors import PRECISIONS

WIDTH = 16
DIGEST = "a" * 64


def about(precision: str = "float16", digest: str = DIGEST) -> About:
    return About(digest, "/somewhere/clip.bundle", WIDTH, precision)


def rows(count: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)


def items(count: int, state: str = "1") -> list[Item]:
    return [Item(f"{index}.png", "image", state) for index in range(count)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "photos.index"
    with make_index(path, about()) as made:
        made.add(items(20), rows(20))
    return path


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-7), ("float16", 1e-3), ("int8", 0.02)])
def test_vectors_come_back_as_well_as_their_precision_keeps_them(tmp_path, precision, bound):
    with make_index(tmp_path / "index", about(precision)) as made:
        made.add(items(50), rows(50))
    with open_index(tmp_path / "index") as opened:
        found, vectors = opened.read()
    assert found == items(50)
    assert np.abs(vectors - rows(50)).max() < bound
    assert np.linalg.norm(vectors, axis=-1) == pytest.approx(np.ones(50), abs=1e-6)


def test_what_is_added_again_is_replaced(path):
    with make_index(path, about()) as made:
        made.add([Item("3.png", "image", "2")], rows(1, seed=9))
    with open_index(path) as opened:
        states, (found, vectors) = opened.states(), opened.read()
    assert len(states) == 20 and states["3.png", "image"] == "2"
    place = [item.name for item in found].index("3.png")
    assert np.abs(vectors[place] - rows(1, seed=9)[0]).max() < 1e-3


def test_the_same_name_may_be_a_picture_and_a_text(path):
    with make_index(path, about()) as made:
        made.add([Item("3.png", "text", "")], rows(1))
        assert len(made.states()) == 21
        assert [item.name for item in made.read("text")[0]] == ["3.png"]


def test_what_is_removed_is_found_no_more(path):
    with make_index(path, about()) as made:
        made.remove([("0.png", "image"), ("1.png", "image")])
        assert [item.name for item in made.read()[0]] == [f"{index}.png" for index in range(2, 20)]


def test_an_index_of_another_bundle_is_refused(path):
    with pytest.raises(UsageError, match="made by another bundle: its digest is aaaaaaaaaaaa, this one's bbbbbbbbbbbb"):
        make_index(path, about(digest="b" * 64))
    with open_index(path) as opened, pytest.raises(UsageError, match="another bundle"):
        check_bundle(opened.about, "b" * 64, WIDTH, path)


def test_vectors_of_another_width_than_their_bundle_makes_are_damage(path):
    with open_index(path) as opened, pytest.raises(BundleError, match="its vectors are 16 wide, those of its bundle 8"):
        check_bundle(opened.about, DIGEST, 8, path)


def test_an_index_keeps_its_precision(path):
    with pytest.raises(UsageError, match="is in float16, not in int8"):
        make_index(path, about("int8"))


def test_an_index_may_be_added_to_as_it_is(path):
    with make_index(path, about("int8"), as_it_is=True) as made:
        assert made.about.precision == "float16"


def test_there_are_three_precisions(tmp_path):
    with pytest.raises(UsageError, match="`float8` is no precision") as caught:
        make_index(tmp_path / "index", about("float8"))
    assert all(name in caught.value.hint for name in PRECISIONS)


def test_no_index_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="there is no index at"):
        open_index(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 2\0" + bytes(100)])
def test_another_file_is_no_index(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(BundleError, match="is no index of mmedge"):
        open_index(tmp_path / "file")


def test_another_database_is_no_index_and_is_left_as_it_was(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other")) as database, database:
        database.execute("CREATE TABLE mine (x)")
    before = (tmp_path / "other").read_bytes()
    for opening in (open_index, lambda path: make_index(path, about())):
        with pytest.raises(BundleError, match="is no index of mmedge"):
            opening(tmp_path / "other")
    assert (tmp_path / "other").read_bytes() == before


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_truncated_index_is_damaged(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BundleError, match="is damaged"), open_index(path) as opened:
        opened.read()


def test_a_vector_of_another_length_is_damage(path):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE items SET vector = x'00' WHERE name = '7.png'")
    with (
        open_index(path) as opened,
        pytest.raises(BundleError, match="the vector of item number 8 is 1 bytes long, not 32"),
    ):
        opened.read()


def test_reading_all_vectors_takes_hardly_more_memory_than_they_do(tmp_path):
    count, width = 8000, 128
    with make_index(tmp_path / "index", About(DIGEST, "", width, "float16")) as made:
        vectors = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
        made.add([Item(f"/photos/of/a/holiday/{number}.jpg", "image", "1 1") for number in range(count)], vectors)
    with open_index(tmp_path / "index") as opened:
        tracemalloc.start()
        ids, found = opened.rows()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert found.shape == (count, width) and len(ids) == count
    assert peak < 4 * count * width * 1.6


def test_a_newer_schema_is_refused(path):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE about SET value = '2' WHERE name = 'schema'")
    with pytest.raises(BundleError, match="has schema 2, this mmedge reads 1"):
        open_index(path)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE items SET vector = 5",
        "UPDATE items SET vector = printf('%32d', 1)",
        "UPDATE items SET vector = x'" + "00fe" * 16 + "'",
        "UPDATE items SET name = x'ff' WHERE id = 1",
        "UPDATE items SET name = CAST(x'ff' AS TEXT) WHERE id = 1",
        "UPDATE about SET value = CAST(x'41' AS BLOB) WHERE name = 'bundle'",
        "UPDATE about SET value = 'x' WHERE name = 'width'",
        "DROP TABLE items",
        "DROP TABLE about",
    ],
)
def test_what_a_stranger_made_of_an_index_is_damage(path, change):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(change)
    with pytest.raises(BundleError, match="is damaged"), open_index(path) as opened:
        opened.read()


def test_another_writer_is_waited_for_and_then_told(path, monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other, other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(BusyError, match="is in use by another process"), make_index(path, about()) as made:
            made.add(items(1, "2"), rows(1))


def test_whoever_looks_through_all_is_waited_for_too(path, monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.1)
    with open_index(path) as opened, opened.still():
        opened.states()
        with pytest.raises(BusyError, match="is in use by another process"), make_index(path, about()) as made:
            made.add(items(1, "2"), rows(1))
    with make_index(path, about()) as made:
        made.add(items(1, "2"), rows(1))


def test_of_two_that_make_an_index_at_once_both_can_add_to_it(tmp_path, monkeypatch):
    create, others = module._create, []

    def late(database, wanted):
        if not others:
            others.append(None)
            others.append(make_index(tmp_path / "index", about()))
        create(database, wanted)

    monkeypatch.setattr(module, "_create", late)
    with make_index(tmp_path / "index", about()) as made, others[1] as other:
        made.add(items(3), rows(3))
        other.add(items(5), rows(5))
        assert len(made.states()) == 5


def test_a_batch_that_was_left_half_written_is_taken_back_by_whoever_searches(path, tmp_path):
    copy = tmp_path / "copy.index"
    with make_index(path, about()) as made:
        made.add(items(5000), rows(5000))
    with make_index(path, about()) as made:
        made._database.execute("PRAGMA cache_size = 2")  # so that pages go to the disk before the end
        made._database.execute("BEGIN IMMEDIATE")
        made._database.execute("UPDATE items SET state = '2'")
        for suffix in ("", "-journal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        made._database.rollback()
    with open_index(copy) as opened:
        assert set(opened.states().values()) == {"1"} and len(opened.states()) == 5000
    assert not copy.with_name("copy.index-journal").exists()


def test_an_index_that_is_open_for_a_search_cannot_be_changed(path):
    with open_index(path) as opened, pytest.raises(ResourceError, match="readonly"):
        opened.remove([("0.png", "image")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_index_that_may_not_be_written_is_searched_all_the_same(path):
    path.chmod(0o444)
    path.parent.chmod(0o555)
    with open_index(path) as opened:
        assert len(opened.read()[0]) == 20
    path.parent.chmod(0o755)


def test_after_every_change_another_word_is_kept(path):
    with make_index(path, about()) as made:
        words = [made.noted(STATE)]
        made.add(items(1, "2"), rows(1))
        words.append(made.noted(STATE))
        made.remove([("0.png", "image")])
        words.append(made.noted(STATE))
        made.add([], rows(0))
        made.remove([])
        assert len(set(words)) == 3 and made.noted(STATE) == words[-1]


def test_a_full_disk_loses_nothing(path):
    with make_index(path, about()) as made:
        pages = made._database.execute("PRAGMA page_count").fetchone()[0]
        made._database.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(ResourceError, match="full"):
            made.add([Item(f"new {index}", "image", "1") for index in range(1000)], rows(1000))
    with open_index(path) as opened:
        assert len(opened.read()[0]) == 20


KILLED = """
import sys
sys.path[:0] = {path!r}
import numpy as np
from mmedge.runtime.index import About, Item, make_index
with make_index(__import__("pathlib").Path(sys.argv[1]), About("a" * 64, "", 16, "float16")) as made:
    for batch in range(10_000):
        names = [Item(f"{{batch}}.{{index}}", "image", "1") for index in range(8)]
        made.add(names, np.ones((8, 16), np.float32))
        print(batch, flush=True)
"""


def test_killed_at_any_time_whole_batches_are_in_it(tmp_path):
    index = tmp_path / "index"
    for batches in (1, 7, 30):
        line = [sys.executable, "-c", KILLED.format(path=sys.path), index]
        child = subprocess.Popen(line, stdout=subprocess.PIPE)
        for _ in range(batches):
            child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with open_index(index) as opened:
            found, vectors = opened.read()
        assert len(found) >= 8 * batches and len(found) % 8 == 0 and len(vectors) == len(found)
