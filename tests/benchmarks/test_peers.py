"""Environments of peers, without pip; the peer of transformers on a tiny checkpoint, without its environment."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from mmedge.profiling.messages import Ask, Load
from mmedge.profiling.workers import running

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture(scope="module")
def environment():
    spec = spec_from_file_location("environment", PEERS / "environment.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installs(environment, monkeypatch):
    """What pip is told instead of being run."""
    told: list[list[str]] = []
    monkeypatch.setattr(environment.subprocess, "run", lambda command, check: told.append([*map(str, command)]))
    monkeypatch.setattr(environment.venv, "create", lambda folder, **_: folder.mkdir(parents=True))
    return told


def test_an_environment_is_made_once_with_the_constraints_of_the_repository(environment, installs, tmp_path):
    python, deaf, script = environment.command("transformers_blip", tmp_path)
    assert environment.command("transformers_blip", tmp_path) == (python, deaf, script)
    assert deaf == "-E", "a worker's parent tells it where it would import from"
    assert python == str(tmp_path / "transformers_blip" / "bin" / "python") and Path(script).exists()
    [pip] = installs
    assert pip[pip.index("--constraint") + 1] == str(environment.CONSTRAINTS)
    assert pip[pip.index("--editable") + 1] == str(environment.ROOT), "mmedge without extras"


def test_it_is_made_anew_when_what_it_is_made_from_changed(environment, installs, tmp_path):
    environment.python_of("transformers_blip", tmp_path)
    (tmp_path / "transformers_blip" / "made").write_text("something else")
    environment.python_of("transformers_blip", tmp_path)
    assert len(installs) == 2


def test_a_peer_may_need_other_versions_than_the_repository(environment, installs, tmp_path):
    environment.python_of("optimum_intel_vlm", tmp_path)
    [pip] = installs
    assert pip[pip.index("--constraint") + 1] == str(PEERS / "optimum_intel_vlm.constraints")


def test_an_unknown_peer_is_refused_with_the_known_ones(environment, installs, tmp_path):
    with pytest.raises(SystemExit, match=r"only: .*transformers_blip"):
        environment.command("nobody", tmp_path)
    assert not installs


@pytest.mark.slow
def test_transformers_answers_with_the_stages_of_everyone(tiny_checkpoint, tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    checkpoint = tiny_checkpoint(0, tmp_path / "checkpoint")
    command = (sys.executable, "-E", str(PEERS / "transformers_blip.py"), "float32")
    with running("transformers", command) as worker:
        worker.wait_until_started()
        worker.load(Load(str(checkpoint), None, 1))
        answered = [worker.ask(Ask("caption", str(tmp_path / "red.png"), None, 8)) for _ in range(3)][-1]
    assert list(answered.stages_ns) == ["decode", "preprocess", "encode", "prefill", "decode_loop", "detokenise"]
    assert len(answered.tokens) == len(answered.token_ns) <= 8
    assert 0 <= answered.answer_ns - sum(answered.stages_ns.values()) < 0.03 * answered.answer_ns
