import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

import mmedge
from mmedge import cli
from mmedge.profiling.report import Profile
from mmedge.profiling.show import WIDTH

QUICK = ("--sittings", "1", "--warmup", "2")


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.run(["profile", *map(str, arguments)])
    return (code, *capsys.readouterr())


def test_no_bundle_is_a_usage_error(capsys):
    code, out, err = run(capsys)
    assert (code, out) == (2, "") and "no bundle is given" in err


def test_a_bundle_that_is_not_there_is_a_usage_error(capsys, tmp_path):
    code, _, err = run(capsys, tmp_path / "none.bundle")
    assert code == 2 and "there is no bundle at" in err


def test_an_unknown_task_is_a_usage_error(capsys, tmp_path):
    code, _, err = run(capsys, tmp_path, "--task", "sing")
    assert code == 2 and "no task `sing`" in err


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint, tmp_path_factory) -> Path:
    """A real one, of a tiny captioner with random weights."""
    folder = tmp_path_factory.mktemp("profile")
    mmedge.export(str(tiny_checkpoint(0, folder / "checkpoint")), output=folder / "tiny.bundle", precision="float32")
    return folder / "tiny.bundle"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A list of two pictures, and beside it a file that is none."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for name in ("red", "blue"):
        Image.new("RGB", (20, 30), name).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"nonsense")
    lines = (f'{{"image": "{name}.png", "caption": "a {name} picture"}}\n' for name in ("red", "blue"))
    (folder / "list.jsonl").write_text("".join(lines))
    return folder / "list.jsonl"


@pytest.mark.slow
def test_a_bundle_on_two_engines(bundle, pictures, capsys, tmp_path):
    file = tmp_path / "profile.json"
    options = ("--backends", "onnxruntime,openvino", "--pictures", pictures, "--limit", "4", "--rounds", "12")
    code, out, err = run(capsys, bundle, *options, *QUICK, "-o", file)
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= WIDTH
    found = msgspec.json.decode(file.read_bytes(), type=Profile)
    assert found.complete and {"onnxruntime", "openvino"} <= found.software.keys()
    assert [each.name for each in found.candidates] == ["tiny onnxruntime", "tiny openvino", "tiny onnxruntime again"]
    stages = {"read", "decode", "preprocess", "encode", "prefill", "decode_loop", "detokenise"}
    assert all(run.stages_ms.keys() == stages and len(run.token_ms) <= 4 for run in found.rounds)
    assert all(sum(run.stages_ms.values()) <= run.answer_ms for run in found.rounds)
    assert [result.equal.value for result in found.results] == [1, 1, 1]
    assert [result.right.of for result in found.results] == [2, 2, 2]


@pytest.mark.slow
def test_json_on_standard_output_is_the_whole_profile(bundle, capsys):
    code, out, _ = run(capsys, bundle, "--rounds", "6", *QUICK, "--json")
    found = msgspec.json.decode(out, type=Profile)
    assert code == 0 and found.complete and len(found.rounds) == 12


@pytest.mark.slow
def test_a_broken_picture_ends_it_with_the_exit_code_of_the_worker(bundle, pictures, capsys):
    code, out, err = run(capsys, bundle, "--pictures", pictures.parent, "--rounds", "6", *QUICK)
    assert (code, out) == (3, "") and "broken.png" in err


@pytest.mark.slow
def test_a_missing_engine_ends_it_with_the_exit_code_of_the_worker(bundle, capsys, monkeypatch, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('gone', name='onnxruntime')")
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = run(capsys, bundle, "--backends", "onnxruntime")
    assert code == 5 and "tiny onnxruntime: the package `onnxruntime` is not installed" in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_profiler_leaves_no_worker(number, bundle, tmp_path, wait_for_end):
    file = tmp_path / "profile.json"
    command = [sys.executable, "-m", "mmedge", "profile", bundle, "--rounds", "1000000", *QUICK, "-o", file]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (file.exists() and b'"round":9' in file.read_bytes()):
            time.sleep(0.1)
        workers = [int(child) for child in _children(process.pid)]
        process.send_signal(number)
        assert "stopped by" in process.stderr.read()
    assert len(workers) == 2 and process.returncode == 128 + number
    for worker in workers:
        wait_for_end(worker)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.slow
def test_threads_that_the_machine_lacks_are_a_usage_error(capsys, bundle, pictures):
    code, _, err = run(capsys, bundle, "--pictures", pictures, "--threads", 100_000)
    assert code == 2 and "100000 threads are asked for" in err
