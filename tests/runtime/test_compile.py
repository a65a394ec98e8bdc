"""Bundles made ready on an engine that is a plugin, and asked afterwards."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from mmedge.core.children import _environment
from mmedge.core.target import Stack
from mmedge.errors import BackendError, BundleError, QualityError, ResourceError
from mmedge.runtime import asking
from mmedge.runtime.choose import choose
from mmedge.runtime.compile import _tight, _unlike, compile_bundle, steps
from mmedge.runtime.ready import ready


class Notes:
    """A watcher that writes everything down."""

    def __init__(self) -> None:
        self.begun, self.ended, self.moments, self.lines = [], [], [], []

    def warn(self, warning) -> None:
        self.lines.append(warning)

    def begin(self, step) -> None:
        self.begun.append(step.component)

    def moment(self, step, moment) -> None:
        self.moments.append(moment)

    def end(self, made) -> None:
        self.ended.append(made)

    def replay(self, line) -> None:
        self.lines.append(line)


@pytest.fixture
def bundle(small_bundle, pretend, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {"builder_mb": 2000, "workspace_mb": 64}

    def change(manifest):
        backends = dict.fromkeys(("tower", "decode"), "pretend")
        return replace(manifest, target=replace(manifest.target, backends=backends, options=options))

    return small_bundle(change)


def states(bundle) -> dict[str, str]:
    return {step.component: step.state for step in steps(bundle)[1]}


def test_every_graph_is_compiled_and_the_samples_are_replayed(bundle):
    notes = Notes()
    found = compile_bundle(bundle, notes)
    assert found.passed and not found.refused
    assert [made.state for made in found.made] == ["compiled", "compiled"]
    assert notes.begun == ["encoder", "decoder"] and notes.ended == [*found.made]
    assert {check.what for check in found.verification.checks} == {"preprocess", "encoder", "decoder", "tokens"}
    assert all(made.peak_mb > 1 for made in found.made)
    assert found.here.engines == {"pretend": {"version": "1.2", "compute_capability": "8.7"}}


def test_what_is_ready_is_kept(bundle):
    first = compile_bundle(bundle, Notes())
    again = compile_bundle(bundle, notes := Notes())
    assert [made.state for made in again.made] == ["kept", "kept"] and notes.begun == []
    assert [made.path for made in again.made] == [made.path for made in first.made]


def test_after_a_failure_it_goes_on_where_it_was(bundle, pretend):
    pretend("PRETEND_DECODER", "crash")
    with pytest.raises(BackendError, match="SIGSEGV"):
        compile_bundle(bundle, Notes())
    assert states(bundle) == {"encoder": "ready", "decoder": "to compile"}
    pretend("PRETEND_DECODER", "")
    assert [made.state for made in compile_bundle(bundle, Notes()).made] == ["kept", "compiled"]


def test_what_it_would_do_is_told_without_doing_it(bundle, pretend):
    here, planned = steps(bundle)
    assert [step.state for step in planned] == ["to compile", "to compile"]
    assert all(step.expected_mb > 64 and "small.bundle.ready" in step.folder for step in planned)
    assert here.device.arch in ("x86_64", "aarch64") and not here.warnings
    assert not bundle.path.with_name("small.bundle.ready").exists()


def test_an_engine_that_disagrees_is_removed_and_not_used_again(bundle, pretend):
    pretend("PRETEND", "wrong decoder")
    found = compile_bundle(bundle, Notes())
    assert not found.passed and [*found.refused] == ["decoder"]
    assert found.refused["decoder"].startswith("cosine -1") and "the bound is 0.9999" in found.refused["decoder"]
    assert "golden/0" in found.refused["decoder"] and not Path(found.made[1].path).exists()
    pretend("PRETEND", "")
    decoder = bundle.manifest.graphs[1]
    with pytest.raises(QualityError, match="was refused on this device: cosine -1"):
        ready(bundle, decoder, choose(bundle, "pretend")["decoder"])
    assert states(bundle) == {"encoder": "ready", "decoder": "to compile"}
    again = compile_bundle(bundle, Notes())
    assert again.passed and [made.state for made in again.made] == ["kept", "compiled"]
    assert ready(bundle, decoder, choose(bundle)["decoder"]).exists()


def test_an_encoder_that_disagrees_is_removed_with_what_it_spoils(bundle, pretend):
    pretend("PRETEND", "wrong encoder")
    assert [*compile_bundle(bundle, Notes()).refused] == ["encoder", "decoder"]


def test_a_graph_that_the_engine_refuses_is_remembered(bundle, pretend):
    pretend("PRETEND_ENCODER", "refuse")
    with pytest.raises(BackendError, match="an operator that nobody knows"):
        compile_bundle(bundle, Notes())
    assert steps(bundle)[1][0].refused == "the graph has an operator that nobody knows"


def test_what_cannot_be_opened_even_if_compiled_again_is_told_and_remembered(bundle, pretend):
    compile_bundle(bundle, Notes())
    pretend("PRETEND", "closed decoder")
    with pytest.raises(BackendError, match="cannot open `decoder`"):
        compile_bundle(bundle, notes := Notes())
    assert notes.begun == ["decoder"]
    encoder, decoder = steps(bundle)[1]
    assert (encoder.state, encoder.refused) == ("ready", "") and "cannot open `decoder`" in decoder.refused


@pytest.fixture
def opening(bundle, monkeypatch):
    """``opening(look)``: ``look(graph, artifact)`` is called before the engine opens something."""
    from pretend import Pretend

    was = Pretend.open

    def put(look):
        def opened(engine, graph, artifact, threads=0, options=None):
            look(graph, artifact)
            return was(engine, graph, artifact, threads, options)

        monkeypatch.setattr(Pretend, "open", opened)

    return put


def test_what_was_kept_and_cannot_be_opened_is_compiled_again_in_the_same_run(bundle, opening):
    first = compile_bundle(bundle, Notes())
    broken = os.stat(first.made[1].path).st_ctime_ns  # a new file may be given the same inode

    def look(graph, artifact):
        if os.stat(artifact).st_ctime_ns == broken:
            raise BackendError("the plan is of another driver")

    opening(look)
    again = compile_bundle(bundle, notes := Notes())
    assert again.passed and [made.state for made in again.made] == ["kept", "compiled"]
    assert any("cannot be opened, compiling it again: the plan is of another" in line for line in notes.lines)


def test_nothing_is_opened_before_everything_is_built(bundle, opening):
    notes, built = Notes(), []
    opening(lambda graph, artifact: built.append(len(notes.ended)))
    compile_bundle(bundle, notes)
    assert set(built) == {2} and len(built) == 4  # each alone, and then all for the replay


def test_a_bundle_that_cannot_be_checked_is_refused_before_anything_is_built(bundle):
    unchecked = dataclasses.replace(bundle, manifest=replace(bundle.manifest, golden=()))
    for act in (lambda: compile_bundle(unchecked, Notes()), lambda: steps(unchecked)):
        with pytest.raises(BundleError, match="has no golden samples: what is compiled of it cannot be checked"):
            act()
    assert not bundle.path.with_name("small.bundle.ready").exists()


def test_what_was_compiled_counts_as_checked_only_once_it_answered_right(bundle, pretend, monkeypatch, caplog):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    def told():
        caplog.clear()
        for graph in bundle.manifest.graphs:
            ready(bundle, graph, choose(bundle)[graph.component])
        return [line.split()[0] for line in caplog.messages if "never asked the golden samples" in line]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mmedge.runtime.asking.verify", stopped)
        compile_bundle(bundle, Notes())
    assert told() == ["`encoder`", "`decoder`"]
    caplog.clear()
    assert compile_bundle(bundle, Notes()).passed and not caplog.messages
    assert told() == []


def test_an_answer_of_another_engine_is_no_check_of_this_one(bundle, opening, monkeypatch):
    """Each can be opened alone, and not both."""
    was = asking.verify
    monkeypatch.setattr(
        asking,
        "verify",
        lambda *arguments, **named: replace(was(*arguments, **named), backends={"encoder": "x", "decoder": "x"}),
    )
    with pytest.raises(ResourceError, match="`encoder` cannot be opened by pretend beside the other graphs: x"):
        compile_bundle(bundle, Notes())
    assert not [*bundle.path.with_name("small.bundle.ready").rglob("replayed")]


def test_memory_for_one_graph_but_not_for_both_is_no_answer_of_another_engine(bundle, opening):
    opened = []

    def look(graph, artifact):
        opened.append(graph.component)
        if len(opened) == 4:
            raise ResourceError("no room for both")

    opening(look)
    with pytest.raises(ResourceError, match="no room for both"):
        compile_bundle(bundle, Notes())


def test_a_disagreement_is_told_where_the_refusal_cannot_be_kept(bundle, pretend, opening, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    place = bundle.path.with_name("small.bundle.ready")
    pretend("PRETEND", "wrong decoder")
    was = asking.verify

    def then_close(*arguments, **named):
        found = was(*arguments, **named)
        place.rename(place.with_name("away"))
        place.write_text("in the way")
        return found

    monkeypatch.setattr(asking, "verify", then_close)
    found = compile_bundle(bundle, Notes())
    assert not found.passed and found.refused["decoder"].startswith("cosine -1")


def test_memory_that_may_not_do_is_told_before(bundle):
    planned = steps(bundle)[1]
    assert _tight(planned, 100_000) == []
    (told,) = _tight(planned, 10)
    assert "may take about 64 MiB, 10 MiB are free" in told


def test_memory_that_ran_out_is_no_reason_to_refuse_for_good(bundle, pretend):
    pretend("PRETEND_ENCODER", "eat")
    with pytest.raises(ResourceError, match="it may take 150"):
        compile_bundle(bundle, Notes(), builder_mb=150)
    assert steps(bundle)[1][0].refused == ""


def test_another_limit_makes_no_other_engine(bundle):
    first = compile_bundle(bundle, Notes(), builder_mb=0)
    assert [made.path for made in compile_bundle(bundle, Notes()).made] == [made.path for made in first.made]


@pytest.mark.parametrize(
    ("version", "told"), [("10.3.0.30", False), ("10.16.2", False), ("10.1", True), ("8.6.2", True)]
)
def test_a_version_that_no_system_of_the_target_has_is_told(version, told, small_bundle):
    stacks = tuple(Stack(name, "3.10", tensorrt=tensorrt) for name, tensorrt in (("6.2", "10.3"), ("7.2", "10.16")))
    made = small_bundle(lambda manifest: replace(manifest, target=replace(manifest.target, stacks=stacks)))
    engine = SimpleNamespace(version=lambda: version)
    warnings = _unlike(made, {"tensorrt": engine, "openvino": engine})
    assert warnings == ([f"this bundle was checked for tensorrt 10.3 and 10.16, here is {version}"] if told else [])


def test_a_signal_ends_the_build_and_leaves_what_was_ready(bundle, pretend, tmp_path):
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    pretend("PRETEND_DECODER", f"wait {waiting}")
    command = (sys.executable, "-m", "mmedge", "compile", str(bundle.path))
    parent = subprocess.Popen(command, env=_environment(), stderr=subprocess.PIPE, text=True)
    while not [*waiting.iterdir()]:
        assert parent.poll() is None, parent.stderr.read()
        time.sleep(0.02)
    parent.send_signal(signal.SIGTERM)
    told = parent.communicate()[1]
    assert parent.returncode == 143 and "stopped by SIGTERM" in told
    assert not os.path.exists(f"/proc/{next(waiting.iterdir()).name}")
    assert states(bundle) == {"encoder": "ready", "decoder": "to compile"}
    assert not [path for path in bundle.path.with_name("small.bundle.ready").iterdir() if path.name in (".new", ".old")]
