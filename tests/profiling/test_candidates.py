import pytest
from msgspec.structs import replace

from mmedge.core.bundle import Graph
from mmedge.errors import UsageError
from mmedge.profiling.candidates import candidates_of, twin


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


def test_numbers_of_threads_are_candidates_of_their_own(bundle):
    found = candidates_of([bundle()], ["openvino"], threads=(1, 2))
    assert [(each.name, each.threads) for each in found] == [("small openvino 1t", 1), ("small openvino 2t", 2)]


def test_only_bundles_of_the_precisions_that_are_asked_for(bundle):
    floating = (Graph("encoder", "graphs/encoder.onnx", (), (), "float32"),)
    paths = [bundle("a.bundle"), bundle("b.bundle", graphs=floating)]
    assert [each.name for each in candidates_of(paths, ["openvino"], precisions=["float32"])] == ["b openvino"]
    with pytest.raises(UsageError, match="no bundle has a component in `int4`") as caught:
        candidates_of(paths, precisions=["int4"])
    assert caught.value.hint == "there are: float32, int8"
