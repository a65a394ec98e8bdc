"""A bundle for a Jetson compiled, checked and asked as on a device, on the doubles of TensorRT and the CUDA runtime."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mmedge_doubles.install import environment
from mmedge_doubles.settings import VERSIONS

from mmedge.core.bundle import open_bundle
from mmedge.core.find import PACKAGE

pytestmark = pytest.mark.slow

PICTURE = PACKAGE / "builtin/scenes/pictures/one.png"


@pytest.fixture(scope="session")
def exported(checkpoints, tmp_path_factory) -> Path:
    from mmedge.export.build import export

    output = tmp_path_factory.mktemp("jetson") / "tiny.bundle"
    export(str(checkpoints[0]), output=output, target="jetson")
    return output


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    return shutil.copytree(exported, tmp_path / "tiny.bundle")


@pytest.fixture
def on_jetson():
    """``on_jetson("compile", bundle)`` runs the command in a process that finds the doubles."""

    def run(*arguments: object, version: str = "10.3", **settings: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mmedge", *map(str, arguments)]
        paths = {"PYTHONPATH": os.pathsep.join([environment(version)["PYTHONPATH"], str(PACKAGE.parent)])}
        return subprocess.run(
            command, env={**environment(version, **settings), **paths}, capture_output=True, text=True, timeout=120
        )

    return run


def entries(bundle: Path) -> set[str]:
    """Without what TensorRT measured, and the lock."""
    return {path.name for path in bundle.with_name("tiny.bundle.ready").iterdir() if "-tensorrt-" in path.name}


@pytest.mark.parametrize("version", [version for version in VERSIONS if version != "8.6"])
def test_every_version_compiles_answers_like_onnxruntime_and_keeps_what_it_made(version, bundle, on_jetson):
    compiled = on_jetson("compile", bundle, version=version)
    assert compiled.returncode == 0, compiled.stderr
    assert "2 graphs ready, 2 compiled now" in compiled.stdout and "passed on tensorrt" in compiled.stdout
    answers = [
        on_jetson("caption", bundle, PICTURE, "--backend", backend, version=version)
        for backend in ("tensorrt", "onnxruntime")
    ]
    assert answers[0].stdout == answers[1].stdout and not answers[0].stderr
    again = on_jetson("compile", bundle, version=version)
    assert "0 compiled now" in again.stdout and again.stderr.count("ready already") == 2


def test_a_version_that_is_too_old_for_the_operators_says_so_and_a_fall_back_answers(bundle, on_jetson):
    shown = on_jetson("compile", bundle, version="8.6")
    assert shown.returncode == 5 and "No importer registered for op: Cast of operator set 19" in shown.stderr
    answer = on_jetson("caption", bundle, PICTURE, version="8.6")
    assert answer.returncode == 0 and answer.stdout and "instead of tensorrt" in answer.stderr


def test_a_version_that_the_bundle_was_not_checked_for_is_told(bundle, on_jetson):
    shown = on_jetson("compile", bundle, "--dry-run", version="8.6")
    assert "warning: this bundle was checked for tensorrt 10.3 and 10.16, here is 8.6" in shown.stdout


def test_another_device_or_version_gets_engines_of_its_own(bundle, on_jetson):
    on_jetson("compile", bundle)
    first = entries(bundle)
    for settings in ({"compute_capability": "11.0"}, {"version": "10.16"}):
        before = entries(bundle)
        assert "2 compiled now" in on_jetson("compile", bundle, **settings).stdout
        assert len(entries(bundle) - before) == 2
    assert first < entries(bundle)


def test_engines_that_came_with_a_bundle_are_made_again(bundle, on_jetson, tmp_path):
    on_jetson("compile", bundle)
    for name in ("tiny.bundle", "tiny.bundle.ready"):
        shutil.copytree(bundle.with_name(name), tmp_path / "elsewhere" / name)
    shown = on_jetson("compile", tmp_path / "elsewhere/tiny.bundle")
    assert "2 compiled now" in shown.stdout and "is not as it was made on this device" in shown.stderr


def test_an_engine_that_disagrees_is_removed_by_how_much_and_where_is_told(bundle, on_jetson):
    shown = on_jetson("compile", bundle, spoil=0.5)
    assert shown.returncode == 7 and "`decoder` was removed: cosine 0." in shown.stderr
    assert "for golden/0, the bound is 0.99" in shown.stderr
    assert all(name.endswith(".refused") for name in entries(bundle))
    answer = on_jetson("caption", bundle, PICTURE)
    assert answer.returncode == 0 and "onnxruntime runs `encoder`, `decoder` instead of tensorrt" in answer.stderr
    assert on_jetson("caption", bundle, PICTURE, "--backend", "tensorrt").returncode == 7
    assert on_jetson("compile", bundle).returncode == 0
    assert not on_jetson("caption", bundle, PICTURE).stderr


def test_a_build_that_takes_too_much_memory_is_ended_and_the_next_one_may_succeed(bundle, on_jetson):
    shown = on_jetson("compile", bundle, "--builder-mb", 250, build_memory_mb=600)
    assert shown.returncode == 6 and "it may take 250" in shown.stderr
    assert on_jetson("compile", bundle, "--builder-mb", 2000, build_memory_mb=600).returncode == 0


def test_a_graph_that_cannot_be_built_is_told_and_a_fall_back_answers(bundle, on_jetson):
    story = "Could not find any implementation for node {ForeignNode[head...]}"
    shown = on_jetson("compile", bundle, build_error=story)
    assert shown.returncode == 5 and story in shown.stderr
    answer = on_jetson("caption", bundle, PICTURE)
    assert answer.returncode == 0 and "onnxruntime runs `encoder` instead of tensorrt" in answer.stderr


def test_opening_compiles_too_and_says_how_to_do_it_ahead(bundle, on_jetson):
    answer = on_jetson("caption", bundle, PICTURE)
    assert answer.returncode == 0 and f"`mmedge compile {bundle}` does it ahead" in answer.stderr
    assert len(entries(bundle)) == 2
    assert on_jetson("caption", bundle, PICTURE).stderr.count("never asked the golden samples") == 2
    on_jetson("compile", bundle)
    assert not on_jetson("caption", bundle, PICTURE).stderr


def test_a_graph_that_cannot_be_built_while_opening_is_answered_by_a_fall_back_at_once(bundle, on_jetson):
    answer = on_jetson("caption", bundle, PICTURE, build_error="Could not find any implementation")
    assert answer.returncode == 0 and answer.stdout
    assert "onnxruntime runs `decoder` instead of tensorrt" in answer.stderr


def test_memory_that_runs_out_at_the_first_answer_is_answered_by_a_fall_back_and_tried_again(bundle, on_jetson):
    story = "Error Code 2: OutOfMemory (Requested size was 536870912 bytes.)"
    answer = on_jetson("caption", bundle, PICTURE, build_error=story)
    assert answer.returncode == 0 and answer.stdout and "with more memory free, `mmedge compile" in answer.stderr
    assert "instead" not in on_jetson("caption", bundle, PICTURE).stderr and len(entries(bundle)) == 2


def test_memory_that_does_not_do_for_what_was_built_is_answered_by_a_fall_back(bundle, on_jetson):
    on_jetson("compile", bundle)
    answer = on_jetson("caption", bundle, PICTURE, memory_mb=0)
    assert answer.returncode == 0 and answer.stdout and answer.stderr.count("instead of tensorrt") <= 2
    assert not on_jetson("caption", bundle, PICTURE).stderr


def test_without_a_gpu_another_engine_answers_aloud(bundle, on_jetson):
    answer = on_jetson("caption", bundle, PICTURE, devices=0)
    assert answer.returncode == 0 and "onnxruntime runs `encoder`, `decoder` instead of tensorrt" in answer.stderr
    assert on_jetson("compile", bundle, "--backend", "tensorrt", devices=0).returncode == 5


def test_command_lines_of_trtexec_are_for_the_installed_version_or_another(bundle, on_jetson, mmedge):
    lines = shlex.split(on_jetson("compile", bundle, "--trtexec", version="8.6").stdout.replace("\\\n", ""))
    assert lines.count("${TRTEXEC:-/usr/src/tensorrt/bin/trtexec}") == 2
    assert "--fp16" in lines and "--stronglyTyped" not in lines
    known = json.loads((PACKAGE / "targets/data/trtexec_flags.json").read_text())
    for version, flags in known.items():
        told = json.loads(mmedge("compile", bundle, "--trtexec", "--version", version, "--json").out)
        arguments = [argument for command in told["commands"] for argument in command[1:]]
        assert {argument.partition("=")[0] for argument in arguments} <= set(flags)
        graphs = open_bundle(bundle).manifest.graphs
        assert len(told["commands"]) == len(graphs)


def test_the_doctor_finds_tensorrt_and_its_gpu(on_jetson):
    shown = on_jetson("doctor")
    assert shown.returncode == 0 and "tensorrt         10.3.0, compute capability 8.7" in shown.stdout
    assert "no: CUDA cannot find a device" in on_jetson("doctor", devices=0).stdout


def test_two_at_once_compile_once(bundle, on_jetson):
    with ThreadPoolExecutor(2) as pool:
        shown = [*pool.map(lambda _: on_jetson("compile", bundle), range(2))]
    assert [each.returncode for each in shown] == [0, 0], [each.stderr for each in shown]
    assert len(entries(bundle)) == 2
