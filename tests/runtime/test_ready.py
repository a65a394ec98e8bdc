"""Compiled graphs beside a real bundle; what is compiled is opened by ONNX Runtime."""

import dataclasses
import logging
import multiprocessing
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from mmedge.backends.onnxruntime import OnnxRuntime
from mmedge.core import find
from mmedge.core.backend import NO_OPTIONS, Options
from mmedge.core.bundle import Bundle, Graph, Manifest, open_bundle
from mmedge.core.ledger import Ledger, listening
from mmedge.core.ports import Port
from mmedge.core.recipe import Acceptance
from mmedge.core.report import Agreement, Answers
from mmedge.core.target import Target
from mmedge.core.writing import new_bundle
from mmedge.errors import BackendError, QualityError, ResourceError
from mmedge.runtime.ready import build_here, entry, ready, replaying

SIZE = 32
GRAPH = Graph(
    component="tower",
    file="graphs/tower.onnx",
    inputs=(Port("picture", "float32", (1, SIZE)),),
    outputs=(Port("answer", "float32", (1, SIZE)),),
    precision="float32",
)
MANIFEST = Manifest(
    schema=1,
    name="small",
    title="",
    model="builtin:small",
    family="module",
    tasks=(),
    target=Target("cpu", "Any CPU", "any", 4096, {"tower": "onnxruntime"}, ("float32",), {}, 23),
    graphs=(GRAPH,),
    config={"model": {}, "image": {}, "text": {"clean_up_tokenization_spaces": True}, "generation": {}},
    assets={"tokenizer": "assets/tokenizer.json"},
    golden=(),
    accept=Acceptance(0.99, 1.0),
    agreement=(Agreement("tower", "float32", 0.0, 1.0, "0", 1),),
    answers=Answers(0, 0),
    preprocess_max_abs=0.0,
    made_with={},
    files={},
)


class Copying(OnnxRuntime):
    """ONNX Runtime with a compiler that copies, and counts how often."""

    def __init__(self, version: str = "1") -> None:
        self.compiled = 0
        self._version = version

    def version(self) -> str:
        return self._version

    def compiles(self, graph: Graph) -> bool:
        return True

    def compile(self, graph: Graph, source: Path, output: Path, options: Options = NO_OPTIONS) -> Path:
        self.compiled += 1
        shutil.copy(source.with_name("tower.onnx.data"), output)
        return Path(shutil.copy(source, output))


ENGINE = Copying()


def write_bundle(path: Path, factor: float = 2.0) -> Bundle:
    weight = numpy_helper.from_array(np.eye(SIZE, dtype=np.float32) * np.float32(factor), "weight")
    picture, answer = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, SIZE]) for n in ("picture", "answer"))
    node = helper.make_node("MatMul", ["picture", "weight"], ["answer"])
    graph = helper.make_graph([node], "small", [picture], [answer], [weight])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 23)])
    with new_bundle(path) as draft:
        for folder in ("graphs", "assets"):
            (draft.folder / folder).mkdir()
        (draft.folder / "assets/tokenizer.json").write_text("{}")
        onnx.save(
            model, draft.folder / GRAPH.file, save_as_external_data=True, location="tower.onnx.data", size_threshold=64
        )
        return draft.finish(MANIFEST)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    return tmp_path / "home" / "cache"


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return write_bundle(tmp_path / "small.bundle")


def answer(artifact: Path) -> float:
    session = ENGINE.open(GRAPH, artifact)
    return float(session.run({"picture": np.ones((1, SIZE), np.float32)})["answer"][0, 0])


def entries(bundle: Bundle) -> list[str]:
    return sorted(path.name for path in bundle.path.with_name("small.bundle.ready").iterdir())


def test_a_graph_is_compiled_once_and_kept_beside_the_bundle(bundle):
    backend = Copying()
    first, second = ready(bundle, GRAPH, backend), ready(bundle, GRAPH, backend)
    assert first == second and backend.compiled == 1
    assert first.parent.parent == bundle.path.with_name("small.bundle.ready")
    assert answer(first) == 2.0
    bundle.verify()


def test_who_listens_hears_what_compiling_and_verifying_took_and_whether_it_was_there(bundle):
    heard = []
    for backend in (Copying(), Copying(), find.backend("onnxruntime")):
        with listening(book := Ledger()):
            ready(bundle, GRAPH, backend)
        heard.append((book.compiled, sorted(book.seconds)))
    assert heard == [("miss", ["compile", "verify"]), ("hit", []), ("none", ["verify"])]


def test_a_chosen_folder_keeps_them_instead(bundle, home, tmp_path, monkeypatch):
    beside = ready(bundle, GRAPH, ENGINE)
    monkeypatch.setenv("MMEDGE_READY", str(tmp_path / "chosen"))
    chosen = ready(bundle, GRAPH, ENGINE)
    assert chosen != beside and chosen.is_relative_to(tmp_path / "chosen")
    assert answer(chosen) == answer(beside) and not home.exists()


def test_nothing_is_stored_of_a_graph_that_needs_no_compiling(bundle):
    assert ready(bundle, GRAPH, find.backend("onnxruntime")) == bundle.path / GRAPH.file
    assert not bundle.path.with_name("small.bundle.ready").exists()


def test_another_version_of_the_engine_compiles_again(bundle):
    first, second = ready(bundle, GRAPH, Copying("1")), ready(bundle, GRAPH, Copying("2"))
    assert first != second and first.exists()


def test_another_bundle_in_the_same_place_compiles_again(tmp_path, bundle):
    first = ready(bundle, GRAPH, ENGINE)
    shutil.rmtree(bundle.path)
    second = ready(write_bundle(tmp_path / "small.bundle", factor=3.0), GRAPH, ENGINE)
    assert first != second and answer(second) == 3.0


@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove", "record", "no record", "copy", "fifo"])
def test_an_entry_that_is_not_as_it_was_made_is_made_again(harm, bundle, caplog):
    artifact = ready(bundle, GRAPH, ENGINE)
    folder, record = artifact.parent, artifact.parent / "made.json"
    weights = artifact.with_name("tower.onnx.data")
    content = weights.read_bytes()
    if harm == "flip":
        weights.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif harm in ("truncate", "empty"):
        os.truncate(weights, len(content) // 2 if harm == "truncate" else 0)
    elif harm == "remove":
        weights.unlink()
    elif harm == "record":
        record.write_bytes(record.read_bytes()[:-20])
    elif harm in ("no record", "fifo"):
        record.unlink()
        if harm == "fifo":
            os.mkfifo(record)
    else:  # as an archive with a bundle from elsewhere would bring it
        shutil.copytree(folder, folder.with_name("copy"))
        shutil.rmtree(folder)
        folder.with_name("copy").rename(folder)
    with caplog.at_level(logging.WARNING):
        again = ready(bundle, GRAPH, ENGINE)
    assert again == artifact and answer(again) == 2.0
    assert "is not as it was made on this device: compiling again" in caplog.text
    assert entries(bundle) == sorted([folder.name, "lock"])


def test_what_a_killed_process_left_is_cleaned(bundle):
    place = bundle.path.with_name("small.bundle.ready")
    (place / ".new" / "deep").mkdir(parents=True)
    (place / ".old").mkdir()
    assert answer(ready(bundle, GRAPH, ENGINE)) == 2.0
    assert not (place / ".new").exists() and not (place / ".old").exists()


def test_a_bundle_can_be_moved_with_what_was_compiled(bundle, tmp_path):
    backend = Copying()
    ready(bundle, GRAPH, backend)
    (tmp_path / "elsewhere").mkdir()
    for name in ("small.bundle", "small.bundle.ready"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    moved = open_bundle(tmp_path / "elsewhere" / "small.bundle")
    assert answer(ready(moved, GRAPH, backend)) == 2.0
    assert backend.compiled == 1


@pytest.mark.parametrize("obstacle", ["file", "link"])
def test_without_a_place_beside_the_bundle_the_users_cache_is_used_and_said(obstacle, bundle, home, tmp_path, caplog):
    place = bundle.path.with_name("small.bundle.ready")
    place.write_text("in the way") if obstacle == "file" else place.symlink_to(tmp_path)
    backend = Copying()
    with caplog.at_level(logging.WARNING):
        artifact = ready(bundle, GRAPH, backend)
    assert home in artifact.parents and answer(artifact) == 2.0
    assert "since they cannot be in" in caplog.text and str(place) in caplog.text
    caplog.clear()
    assert ready(bundle, GRAPH, backend) == artifact
    assert backend.compiled == 1 and not caplog.text


def test_without_any_place_the_error_names_both(bundle, home):
    bundle.path.with_name("small.bundle.ready").write_text("in the way")
    home.parent.mkdir()
    home.write_text("in the way")
    with pytest.raises(ResourceError, match=r"small\.bundle\.ready.*home/cache") as caught:
        ready(bundle, GRAPH, ENGINE)
    assert caught.value.exit_code == 6 and "XDG_CACHE_HOME" in caught.value.hint


def test_no_home_is_no_obstacle(bundle, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert answer(ready(bundle, GRAPH, ENGINE)) == 2.0


def test_nothing_is_left_of_a_graph_that_the_engine_refuses(bundle):
    class Refusing(Copying):
        def compile(self, graph, source, output, options=NO_OPTIONS):
            (output / "half").write_text("written")
            raise BackendError("no")

    with pytest.raises(BackendError, match="no"):
        ready(bundle, GRAPH, Refusing())
    assert entries(bundle) == ["lock"]


def test_another_gpu_or_system_compiles_again(bundle, pretend):
    pretend("PRETEND_CAPABILITY", "8.7")
    first = ready(bundle, GRAPH, find.backend("pretend"))
    pretend("PRETEND_CAPABILITY", "11.0")
    second = ready(bundle, GRAPH, find.backend("pretend"))
    assert first != second and first.exists()
    assert '"compute_capability": "11.0"' in second.with_name("made.json").read_text()


def test_a_folder_under_a_name_that_is_not_its_own_is_not_believed(bundle):
    one, other = entry(bundle, GRAPH, Copying("1")), entry(bundle, GRAPH, Copying("2"))
    one.make(build_here).parent.rename(other.folder())
    assert one.artifact() is None and other.artifact() is None


def test_an_engine_that_is_tied_to_a_gpu_compiles_in_another_process_and_says_how_to_do_it_ahead(
    bundle, pretend, caplog
):
    with caplog.at_level(logging.WARNING):
        artifact = ready(bundle, GRAPH, find.backend("pretend"))
    assert int(artifact.read_text().split()[0]) != os.getpid()
    assert f"`mmedge compile {bundle.path}` does it ahead" in caplog.text


def test_what_an_engine_learnt_is_there_for_the_next_graph_unless_it_came_from_elsewhere(bundle):
    class Learning(Copying):
        def compile(self, graph, source, output, options=NO_OPTIONS):
            learnt = output.parent / "learnt"
            self.knew = learnt.read_text() if learnt.exists() else ""
            learnt.write_text("much")
            return super().compile(graph, source, output)

    def knew(version: str) -> str:
        backend = Learning(version)
        ready(bundle, GRAPH, backend)
        return backend.knew

    assert (knew("1"), knew("2")) == ("", "much")
    place = bundle.path.with_name("small.bundle.ready")
    (place / "learnt").write_text("something else")
    assert knew("3") == ""
    (place / "strange").symlink_to("/etc/passwd")
    assert knew("4") == "much" and "strange" not in entries(bundle)
    (place / "shared.json").write_text("{")
    assert knew("5") == ""


def test_a_graph_that_was_refused_is_not_made_again_unasked(bundle):
    backend = Copying()
    kept = entry(bundle, GRAPH, backend)
    kept.make(build_here)
    kept.refuse("wrong by 0.5", wrong=True)
    assert kept.artifact() is None
    with pytest.raises(QualityError, match=r"`tower` on onnxruntime was refused on this device: wrong by 0\.5") as told:
        ready(bundle, GRAPH, backend)
    assert "mmedge compile" in told.value.hint
    kept.forgive()
    assert answer(ready(bundle, GRAPH, backend)) == 2.0 and backend.compiled == 2


def test_a_backend_compiles_with_the_options_of_the_target(bundle):
    told = {}

    class Listening(Copying):
        def compile(self, graph, source, output, options):
            told.update(options)
            return super().compile(graph, source, output)

    manifest = replace(bundle.manifest, target=replace(bundle.manifest.target, options={"workspace_mb": 7}))
    ready(dataclasses.replace(bundle, manifest=manifest), GRAPH, Listening())
    assert told == {"workspace_mb": 7}


def compile_in_child(path: Path, barrier, results) -> None:
    bundle = open_bundle(path)
    barrier.wait()
    backend = Copying()
    results.put((str(ready(bundle, GRAPH, backend)), backend.compiled))


@pytest.mark.slow
def test_of_two_processes_at_once_one_compiles_and_both_get_it(bundle):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    children = [context.Process(target=compile_in_child, args=(bundle.path, barrier, results)) for _ in range(2)]
    for child in children:
        child.start()
    answers = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert len({path for path, _ in answers}) == 1
    assert sum(compiled for _, compiled in answers) == 1
    assert answer(Path(answers[0][0])) == 2.0
    assert (
        msgspec.json.decode(Path(answers[0][0]).with_name("made.json").read_bytes())["made_for"]["component"] == "tower"
    )


def test_a_refusal_is_kept_where_there_is_a_place_and_holds_for_all_of_them(bundle, home):
    backend = Copying()
    kept = entry(bundle, GRAPH, backend)
    first = kept.make(build_here)
    beside = first.parent.parent
    beside.rename(beside.with_name("away"))
    beside.write_text("in the way")
    kept.refuse("wrong by 0.5", wrong=True)
    beside.unlink()
    beside.with_name("away").rename(beside)
    assert kept.artifact() == first and any(home.rglob("*.refused"))
    with pytest.raises(QualityError, match=r"wrong by 0\.5"):
        ready(bundle, GRAPH, backend)
    kept.forgive()
    assert ready(bundle, GRAPH, backend) == first


def test_a_refusal_that_cannot_be_kept_anywhere_is_told_and_stops_nothing(bundle, home, caplog):
    bundle.path.with_name("small.bundle.ready").write_text("in the way")
    home.parent.mkdir()
    home.write_text("in the way")
    entry(bundle, GRAPH, ENGINE).refuse("wrong", wrong=True)
    assert "cannot be remembered" in caplog.text and "there is no place" in caplog.text


def test_a_file_in_the_way_is_not_where_it_is_to_be(bundle, home):
    bundle.path.with_name("small.bundle.ready").write_text("in the way")
    assert home in entry(bundle, GRAPH, ENGINE).folder().parents


def test_what_was_never_checked_is_told_at_every_open_until_it_was(bundle, pretend, caplog):
    backend = find.backend("pretend")
    ready(bundle, GRAPH, backend)
    for _ in range(2):
        caplog.clear()
        ready(bundle, GRAPH, backend)
        (told,) = caplog.messages
        assert "`tower` on pretend was built here but never asked the golden samples" in told
        assert f"run `mmedge compile {bundle.path}`" in told
    caplog.clear()
    with replaying():
        ready(bundle, GRAPH, backend)
    entry(bundle, GRAPH, backend).mark_replayed()
    ready(bundle, GRAPH, backend)
    assert not caplog.messages


def test_a_build_that_a_signal_ended_is_tried_again_by_the_next_start(bundle, pretend):
    pretend("PRETEND_TOWER", "crash")
    with pytest.raises(BackendError, match="SIGSEGV"):
        ready(bundle, GRAPH, find.backend("pretend"))
    pretend("PRETEND_TOWER", "")
    assert ready(bundle, GRAPH, find.backend("pretend")).exists()
