import json
import shutil

import msgspec.structs
import pytest

from mmedge.core.bundle import MANIFEST, SEAL, open_bundle, write_manifest

slow = pytest.mark.slow


@pytest.fixture
def for_openvino(captioner, tmp_path):
    """A bundle whose target chooses OpenVINO, which is not installed under that name on every device."""
    folder = shutil.copytree(captioner, tmp_path / "tiny.bundle")
    manifest = open_bundle(folder).manifest
    target = msgspec.structs.replace(manifest.target, backends={"tower": "openvino", "decode": "openvino"})
    for name in (MANIFEST, SEAL):
        (folder / name).unlink()
    write_manifest(folder, msgspec.structs.replace(manifest, target=target))
    return folder


def test_a_bundle_that_is_not_there_is_a_usage_error(mmedge, tmp_path):
    assert mmedge("compile", tmp_path / "none.bundle").code == 2


def test_the_help_names_every_option(mmedge):
    shown = mmedge("compile", "--help")
    assert shown.code == 0
    assert all(option in shown.out for option in ("--dry-run", "--trtexec", "--version", "--builder-mb", "--json"))


@slow
def test_graphs_are_compiled_checked_and_kept(mmedge, for_openvino):
    first = mmedge("compile", for_openvino)
    graphs = len(open_bundle(for_openvino).manifest.graphs)
    assert first.code == 0, first.err
    assert f"{graphs} graphs ready, {graphs} compiled now" in first.out and "passed on openvino" in first.out
    assert " MiB  peak" in first.err
    again = mmedge("compile", for_openvino)
    assert f"{graphs} graphs ready, 0 compiled now" in again.out and again.err.count("ready already") == graphs


@slow
def test_a_dry_run_says_what_would_be_done_and_does_nothing(mmedge, for_openvino):
    shown = mmedge("compile", for_openvino, "--dry-run")
    assert shown.code == 0 and "to compile" in shown.out and "tiny.bundle.ready" in shown.out
    assert not for_openvino.with_name("tiny.bundle.ready").exists()
    told = json.loads(mmedge("compile", for_openvino, "--dry-run", "--json").out)
    assert told["here"]["engines"]["openvino"]["version"] and {step["state"] for step in told["steps"]} == {
        "to compile"
    }


@slow
def test_what_is_opened_as_it_is_needs_no_compiling(mmedge, captioner):
    shown = mmedge("compile", captioner)
    assert shown.code == 0 and "needs no compiling" in shown.err and "0 compiled now" in shown.out


@slow
def test_json_tells_what_was_made_and_every_check(mmedge, for_openvino):
    told = json.loads(mmedge("compile", for_openvino, "--json").out)
    assert told["passed"] and not told["refused"]
    assert {made["state"] for made in told["made"]} == {"compiled"} and all(
        made["peak_mb"] > 1 for made in told["made"]
    )
    assert "tokens" in {check["what"] for check in told["verification"]["checks"]}


@slow
def test_too_little_memory_exits_6_and_names_both_figures(mmedge, for_openvino):
    shown = mmedge("compile", for_openvino, "--builder-mb", 20)
    assert shown.code == 6 and "it may take 20" in shown.err


@slow
def test_an_engine_that_is_asked_for_and_missing_exits_5(mmedge, captioner):
    shown = mmedge("compile", captioner, "--backend", "onnxruntime_gpu")
    assert shown.code == 5 and "CPU only" in shown.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--version", "10.3"), "no meaning without"),
        (("--version", ""), "no meaning without"),
        (("--builder-mb", -1), "at least 0"),
        (("--trtexec", "--backend", "onnxruntime"), "--backend cannot be given"),
        (("--trtexec", "--builder-mb", 0), "--builder-mb cannot be given"),
        (("--trtexec", "--threads", 1, "--dry-run"), "--threads and --dry-run cannot be given"),
    ],
)
def test_options_that_mean_nothing_are_usage_errors(arguments, told, mmedge, tmp_path):
    shown = mmedge("compile", tmp_path / "none.bundle", *arguments)
    assert shown.code == 2 and told in shown.err


@slow
def test_a_bundle_that_cannot_be_checked_is_refused_before_anything_is_built(mmedge, for_openvino):
    manifest = open_bundle(for_openvino).manifest
    for name in (MANIFEST, SEAL):
        (for_openvino / name).unlink()
    write_manifest(for_openvino, msgspec.structs.replace(manifest, golden=()))
    shown = mmedge("compile", for_openvino)
    assert shown.code == 4 and "no golden samples" in shown.err
    assert not for_openvino.with_name("tiny.bundle.ready").exists()


@slow
def test_a_bundle_that_only_a_fall_back_answers_is_not_ready(mmedge, bundle_with_fallback):
    shown = mmedge("compile", bundle_with_fallback)
    assert shown.code == 5 and "checks passed on onnxruntime" in shown.out
    assert "2 of 2 graphs are not ready for coreml: onnxruntime answers instead" in shown.err
    assert mmedge("compile", bundle_with_fallback, "--json").code == 5
    assert mmedge("compile", bundle_with_fallback, "--backend", "onnxruntime").code == 0
