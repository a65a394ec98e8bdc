"""Bundles made ready on an engine that is a plugin, and asked afterwards."""

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
from mmedge.errors import BackendError, QualityError, ResourceError
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


def test_what_cannot_be_opened_is_told_and_remembered(bundle, pretend):
    compile_bundle(bundle, Notes())
    pretend("PRETEND", "closed decoder")
    with pytest.raises(BackendError, match="cannot open `decoder`"):
        compile_bundle(bundle, Notes())
    encoder, decoder = steps(bundle)[1]
    assert (encoder.state, encoder.refused) == ("ready", "") and "cannot open `decoder`" in decoder.refused


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
