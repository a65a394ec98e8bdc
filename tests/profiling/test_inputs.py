from pathlib import Path

import pytest
from PIL import Image

from mmedge.errors import BundleError, InputError, UsageError
from mmedge.profiling.inputs import inputs_of

LIST = '{"image": "cat.png", "question": "is this a cat?", "answer": "yes", "caption": "a cat"}\n'


@pytest.fixture
def listed(tmp_path):
    """Writes a list beside the pictures that it names."""

    def write(text: str, name: str = "list.jsonl") -> Path:
        Image.new("RGB", (40, 30), "grey").save(tmp_path / "cat.png")
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.fixture
def asked(tmp_path):
    """What bundles are asked."""
    return lambda bundles, source=None, task=None, most=None: inputs_of(
        bundles, None if source is None else str(source), task, tmp_path, most
    )


def test_without_inputs_the_recorded_requests_are_asked(bundle, asked):
    path = bundle()
    found = asked([path])
    first, second = found.items
    assert found.source == "golden"
    assert (first.task, first.text, first.file) == ("caption", None, str(path / "golden/0/picture.png"))
    assert (second.task, second.text) == ("ask", "is this a cat?")


def test_only_requests_that_every_bundle_recorded_are_asked(bundle, asked):
    paths = [bundle("a.bundle"), bundle("b.bundle", colours=("red", "green"))]
    assert [item.id for item in asked(paths).items] == ["golden/0"]


def test_bundles_without_a_recorded_request_in_common_are_refused(bundle, asked):
    paths = [bundle("a.bundle"), bundle("b.bundle", colours=("white", "black"))]
    with pytest.raises(UsageError, match="2 bundles have no golden sample in common"):
        asked(paths)


def test_bundles_without_a_task_in_common_are_refused(bundle, asked):
    paths = [bundle("a.bundle", tasks=("ask",)), bundle("b.bundle", tasks=("caption",))]
    with pytest.raises(UsageError, match="the bundles have no task in common"):
        asked(paths, "synthetic:8x8")


def test_recorded_requests_of_one_task(bundle, asked):
    assert [item.task for item in asked([bundle()], task="ask").items] == ["ask"]


def test_a_recorded_picture_that_is_damaged_is_refused(bundle, asked):
    path = bundle()
    (path / "golden/0/picture.png").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"golden/0/picture\.png"):
        asked([path])


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (None, ("caption", None, ("a cat",))),
        ("caption", ("caption", None, ("a cat",))),
        ("ask", ("ask", "is this a cat?", ("yes",))),
    ],
)
def test_a_list_tells_what_is_asked_and_what_is_right(task, expected, bundle, listed, asked):
    [item] = asked([bundle()], listed(LIST), task).items
    assert (item.task, item.text, item.expected) == expected
    assert Path(item.file).name == "cat.png"


def test_rows_of_a_list_are_asked_or_captioned_by_what_they_say(bundle, listed, asked):
    rows = (
        '{"image": "cat.png", "question": "is this a cat?", "answer": "yes"}',
        '{"image": "cat.png", "caption": "a cat"}',
        '{"image": "cat.png"}',
    )
    found = asked([bundle()], listed("\n".join(rows)))
    assert [(item.task, item.expected) for item in found.items] == [
        ("ask", ("yes",)),
        ("caption", ("a cat",)),
        ("caption", ()),
    ]


def test_what_the_cost_may_depend_on_is_told(bundle, listed, asked):
    [item] = asked([bundle()], listed(LIST), "ask").items
    size = Path(item.file).stat().st_size
    assert item.features == {"width": 40, "height": 30, "megapixels": 0.0012, "bytes": size, "prompt_characters": 14}


def test_bundles_that_only_answer_questions_are_asked(bundle, listed, asked):
    paths = [bundle("a.bundle"), bundle("b.bundle", tasks=("ask",))]
    assert asked(paths, listed(LIST)).items[0].task == "ask"


def test_at_most_so_many_spread_over_all(bundle, asked, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(10):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    path = bundle()
    assert [item.id for item in asked([path], folder, most=3).items] == ["0.png", "3.png", "6.png"]
    with pytest.raises(UsageError, match="0 inputs are asked for"):
        asked([path], folder, most=0)


def test_a_grid_of_sizes_is_made(bundle, asked):
    found = asked([bundle()], "synthetic:64x48,8x200")
    assert [(item.features["width"], item.features["height"]) for item in found.items] == [(64, 48), (8, 200)]
    assert found.digest == asked([bundle("other.bundle")], "synthetic:64x48,8x200").digest


@pytest.mark.parametrize("sizes", ["64", "0x10", "64x48,", "64x48x3"])
def test_what_is_no_size_is_refused(sizes, bundle, asked):
    with pytest.raises(UsageError, match="is no size of a picture"):
        asked([bundle()], f"synthetic:{sizes}")


def test_a_bundle_that_cannot_do_the_task_is_named(bundle, listed, asked):
    paths = [bundle("a.bundle"), bundle("b.bundle", tasks=("ask",))]
    with pytest.raises(UsageError, match=r"b\.bundle` cannot `caption`"):
        asked(paths, listed(LIST), "caption")


def test_a_sample_without_a_question_cannot_be_asked(bundle, listed, asked):
    with pytest.raises(InputError, match=r"`cat\.png, line 1` has no question"):
        asked([bundle()], listed('{"image": "cat.png"}\n'), "ask")


@pytest.mark.parametrize(
    ("name", "text"), [("none", None), ("list.jsonl", "nonsense"), ("list.txt", "cat.png"), ("list.csv", "picture\n")]
)
def test_inputs_that_cannot_be_used_are_refused(name, text, bundle, listed, asked, tmp_path):
    source = listed(text, name) if text else tmp_path / name
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        asked([bundle()], source)


def test_a_picture_that_is_damaged_is_refused_before_anything_starts(bundle, listed, asked):
    path = listed(LIST)
    path.with_name("cat.png").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="is not a picture"):
        asked([bundle()], path)


def test_a_picture_whose_name_is_no_text_is_refused(bundle, asked, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "caf\udce9.png").touch()
    with pytest.raises(InputError, match="is not UTF-8"):
        asked([bundle()], folder)
