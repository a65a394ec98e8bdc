from pathlib import Path

import pytest
from msgspec.structs import replace

from mmedge.core.bundle import Golden, Graph, Manifest
from mmedge.core.recipe import Acceptance
from mmedge.core.report import Agreement, Answers
from mmedge.core.target import Target
from mmedge.core.writing import new_bundle
from mmedge.errors import BundleError, InputError, UsageError
from mmedge.profiling.candidates import candidates_of, twin
from mmedge.profiling.queries import queries_of

GRAPHS = (
    Graph("encoder", "graphs/encoder.onnx", (), (), "int8"),
    Graph("decoder", "graphs/decoder.onnx", (), (), "float32"),
)
TARGET = Target("cpu", "Any CPU", "any", 4096, {"tower": "openvino", "decode": "onnxruntime"}, ("float32",), {}, 23)
MANIFEST = Manifest(
    schema=1,
    name="small",
    title="",
    model="builtin:small",
    family="blip",
    tasks=("caption", "ask"),
    target=TARGET,
    graphs=GRAPHS[:1],
    config={"model": {}, "image": {}, "text": {"clean_up_tokenization_spaces": True}, "generation": {}},
    assets={"tokenizer": "assets/tokenizer.json"},
    golden=(
        Golden("golden/0", "caption", None, (1,), "a cat"),
        Golden("golden/1", "ask", "is this a cat?", (1,), "yes"),
    ),
    accept=Acceptance(0.99, 1.0),
    agreement=(Agreement("encoder", "int8", 0.0, 1.0, "0", 1),),
    answers=Answers(0, 0),
    preprocess_max_abs=0.0,
    made_with={},
    files={},
)


@pytest.fixture
def bundle(tmp_path):
    """Writes a bundle whose graphs nobody opens."""

    def write(name: str = "small.bundle", **changes) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        with new_bundle(tmp_path / name) as draft:
            pictures = ("golden/0/picture.png", "golden/1/picture.png")
            for file in ("assets/tokenizer.json", "graphs/encoder.onnx", *pictures):
                (draft.folder / file).parent.mkdir(parents=True, exist_ok=True)
                (draft.folder / file).write_bytes(b"")
            return draft.finish(replace(MANIFEST, **changes)).path

    return write


@pytest.fixture
def listed(tmp_path):
    """Writes a list beside the pictures that it names."""

    def write(text: str, name: str = "list.jsonl") -> Path:
        (tmp_path / "cat.png").write_bytes(b"\x89PNG")
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_every_bundle_on_every_engine(bundle):
    found = candidates_of([bundle("a.bundle"), bundle("b.bundle")], ["onnxruntime", "openvino"])
    assert [(each.name, each.backend) for each in found] == [
        ("a onnxruntime", "onnxruntime"),
        ("a openvino", "openvino"),
        ("b onnxruntime", "onnxruntime"),
        ("b openvino", "openvino"),
    ]


def test_without_engines_the_target_chooses(bundle):
    [found] = candidates_of([bundle()])
    assert (found.name, found.backend, found.precisions) == ("small openvino", None, {"encoder": "int8"})


def test_a_candidate_says_which_bundle_it_is_and_how_large(bundle):
    path = bundle()
    [found] = candidates_of([path], ["openvino"])
    files = (file for file in path.rglob("*") if file.is_file() and not file.name.startswith("manifest"))
    assert (found.bundle, found.size) == (str(path), sum(file.stat().st_size for file in files))


def test_bundles_of_one_name_are_told_apart(bundle):
    paths = [bundle("a/x.bundle"), bundle("b/x.bundle"), bundle("c/x.bundle")]
    assert [each.name for each in candidates_of(paths, ["openvino"])] == [
        "x openvino",
        "x openvino (2)",
        "x openvino (3)",
    ]


def test_the_twin_differs_in_name_only(bundle):
    [found] = candidates_of([bundle()], ["openvino"])
    assert twin(found).name == "small openvino again" and replace(twin(found), name=found.name) == found


def test_an_engine_that_is_misspelt_is_refused(bundle):
    with pytest.raises(UsageError, match="no backend is called `onnxruntim`"):
        candidates_of([bundle()], ["onnxruntim"])


def test_no_bundle_is_refused():
    with pytest.raises(UsageError, match="no bundle is given"):
        candidates_of([])


def test_without_pictures_the_recorded_requests_are_asked(bundle):
    path = bundle()
    first, second = queries_of([path], None, None)
    assert (first.task, first.text, first.picture) == ("caption", None, str(path / "golden/0/picture.png"))
    assert (second.task, second.text) == ("ask", "is this a cat?")


def test_recorded_requests_of_one_task(bundle):
    assert [query.task for query in queries_of([bundle()], None, "ask")] == ["ask"]


def test_a_bundle_without_recorded_requests_needs_pictures(bundle):
    with pytest.raises(UsageError, match="no golden samples") as caught:
        queries_of([bundle(golden=())], None, None)
    assert caught.value.hint == "give --pictures"


def test_a_recorded_picture_that_is_damaged_is_refused(bundle):
    path = bundle()
    (path / "golden/0/picture.png").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"golden/0/picture\.png"):
        queries_of([path], None, None)


LIST = '{"image": "cat.png", "question": "is this a cat?", "answer": "yes", "caption": "a cat"}\n'


@pytest.mark.parametrize(
    ("task", "asked"),
    [
        (None, ("caption", None, "a cat")),
        ("caption", ("caption", None, "a cat")),
        ("ask", ("ask", "is this a cat?", "yes")),
    ],
)
def test_a_list_tells_what_is_asked_and_what_is_right(task, asked, bundle, listed):
    [query] = queries_of([bundle()], listed(LIST), task)
    assert (query.task, query.text, query.expected) == asked
    assert Path(query.picture).name == "cat.png"


def test_bundles_that_only_answer_questions_are_asked(bundle, listed):
    paths = [bundle("a.bundle"), bundle("b.bundle", tasks=("ask",))]
    assert queries_of(paths, listed(LIST), None)[0].task == "ask"


def test_a_folder_of_pictures_is_captioned(bundle, listed):
    folder = listed(LIST).parent / "pictures"
    folder.mkdir()
    (folder / "dog.jpg").touch()
    [query] = queries_of([bundle()], folder, None)
    assert (query.name, query.task, query.expected) == ("dog.jpg", "caption", None)


def test_a_bundle_that_cannot_do_the_task_is_named(bundle, listed):
    paths = [bundle("a.bundle"), bundle("b.bundle", tasks=("ask",))]
    with pytest.raises(UsageError, match=r"b\.bundle` cannot `caption`"):
        queries_of(paths, listed(LIST), "caption")


def test_a_sample_without_a_question_cannot_be_asked(bundle, listed):
    with pytest.raises(InputError, match=r"`cat\.png, line 1` has no question"):
        queries_of([bundle()], listed('{"image": "cat.png"}\n'), "ask")


@pytest.mark.parametrize(
    ("name", "text"), [("none", None), ("list.jsonl", "nonsense"), ("list.txt", "cat.png"), ("list.csv", "picture\n")]
)
def test_pictures_that_cannot_be_used_are_refused(name, text, bundle, listed, tmp_path):
    pictures = listed(text, name) if text else tmp_path / name
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        queries_of([bundle()], pictures, None)


def test_a_picture_whose_name_is_no_text_is_refused(bundle, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "caf\udce9.png").touch()
    with pytest.raises(InputError, match="is not UTF-8"):
        queries_of([bundle()], folder, None)
