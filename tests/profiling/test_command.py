import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mmedge
from mmedge import cli
from mmedge.profiling.keep import decode_run, read_run

WIDTH = 80
QUICK = ("--processes", "1", "--rounds", "6")


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = cli.run(["profile", *map(str, arguments)])
    return (code, *capsys.readouterr())


def test_no_bundle_is_a_usage_error(capsys):
    code, out, err = run(capsys)
    assert (code, out) == (2, "") and "no bundle is given" in err


def test_a_bundle_that_is_not_there_is_a_usage_error(capsys, tmp_path):
    code, _, err = run(capsys, tmp_path / "none.bundle")
    assert code == 2 and "there is no bundle at" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "sing"), "there is no task `sing`"),
        (("--budget", "soon"), "`soon` is no length of time"),
        (("--budget", "0"), "`0` is no length of time"),
        (("--ci", "small"), "--ci is `small`, no share"),
        (("--threads", ""), "--threads is ``, it must be a number"),
        (("--threads", "many"), "--threads is `many`, it must be a number"),
        (("--precision", "int3"), "no bundle has a component in `int3`"),
        (("--backend", "onnxruntim"), "no backend is called `onnxruntim`"),
        (("--scenario", "storm"), "there is no scenario `storm`"),
        (("--soak", "long"), "`long` is no length of time"),
        (("--gate", "none.toml"), "cannot read the rules `none.toml`"),
        (("--html", "none/report.html"), "cannot write `none/report.html`"),
        (("--most", "0"), "0 inputs are asked for"),
    ],
)
def test_an_option_that_cannot_be_followed_is_a_usage_error(options, message, bundle, capsys):
    code, out, err = run(capsys, bundle(), *options)
    assert (code, out) == (2, "") and message in err and "hint:" in err


def test_a_file_after_json_is_refused_with_the_option_that_takes_one(bundle, capsys):
    code, _, err = run(capsys, bundle(), "--json", "run.json")
    assert code == 2 and "--json prints, and takes no file" in err and "-o FILE" in err


def test_a_run_that_is_there_is_replaced_only_when_it_is_asked_for(bundle, capsys, tmp_path):
    (tmp_path / "run.json").write_text("precious")
    code, _, err = run(capsys, bundle(), "-o", tmp_path / "run.json")
    assert code == 2 and "is there already" in err and "--force" in err
    assert (tmp_path / "run.json").read_text() == "precious"


@pytest.mark.slow
def test_what_this_machine_can_resolve_needs_no_bundle(capsys, tmp_path):
    file = tmp_path / "run.json"
    code, out, _ = run(capsys, "--aa", "--budget", "2s", "--processes", "2", "-o", file)
    assert code in (0, 9) and "noise floor" in out.splitlines()[0]
    found = read_run(file)
    assert found.results.aa.floor > 0 and len(found.candidates) == 2


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint, tmp_path_factory) -> Path:
    """A real bundle, of a tiny captioner with random weights."""
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
def test_a_bundle_on_two_engines(tiny, pictures, capsys, tmp_path):
    file, page, trace, rows = (tmp_path / name for name in ("run.json", "run.html", "trace.json", "rows.csv"))
    options = ("--backend", "onnxruntime,openvino", "--inputs", pictures, "--limit", "4", "--rounds", "12")
    outputs = ("-o", file, "--html", page, "--trace", trace, "--csv", rows)
    code, out, err = run(capsys, tiny, *options, "--processes", "2", *outputs)
    assert code in (0, 9) and f"wrote {file}" in err.splitlines() and max(map(len, out.splitlines())) <= WIDTH
    assert all(path.stat().st_size > 1000 for path in (file, page, trace, rows))
    found = read_run(file)
    assert found.complete and {"onnxruntime", "openvino"} <= found.software.keys()
    assert [each.name for each in found.candidates] == ["tiny onnxruntime", "tiny openvino", "tiny onnxruntime again"]
    stages = {"decode", "preprocess", "encode", "prefill", "decode_loop", "detokenise"}
    assert all(sample.stages_ns.keys() - {"read"} == stages and len(sample.token_ns) <= 4 for sample in found.rounds)
    assert all(sum(sample.stages_ns.values()) <= sample.answer_ns for sample in found.rounds)
    assert all(sample.spans for sample in found.rounds)
    assert [score.agreement for score in found.quality] == [1, 1, 1]


@pytest.mark.slow
def test_json_on_standard_output_is_the_whole_run(tiny, capsys):
    code, out, _ = run(capsys, tiny, *QUICK, "--json")
    found = decode_run(out.encode())
    assert code in (0, 9) and found.complete and len(found.rounds) == 12


@pytest.mark.slow
def test_a_broken_picture_is_refused_before_anything_is_measured(tiny, pictures, capsys):
    code, out, err = run(capsys, tiny, "--inputs", pictures.parent, *QUICK)
    assert (code, out) == (3, "") and "broken.png" in err


@pytest.mark.slow
def test_a_bundle_that_fails_its_golden_samples_is_refused_or_marked(tiny, capsys, tmp_path):
    other = change_golden(tiny, tmp_path / "other.bundle")
    code, out, err = run(capsys, other, *QUICK)
    assert (code, out) == (7, "") and "does not answer its golden samples as it should" in err and "--unverified" in err
    code, out, _ = run(capsys, other, *QUICK, "--unverified")
    assert code in (0, 9) and "UNVERIFIED" in out.upper()


def change_golden(bundle: Path, place: Path) -> Path:
    """A copy whose golden answers are others than those that it gives."""
    from msgspec.structs import replace

    from mmedge.core.bundle import open_bundle
    from mmedge.core.writing import new_bundle

    opened = open_bundle(bundle)
    with new_bundle(place) as draft:
        for name in opened.manifest.files:
            (draft.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (draft.folder / name).write_bytes((bundle / name).read_bytes())
        wrong = tuple(replace(golden, tokens=(1, 2, 3)) for golden in opened.manifest.golden)
        draft.finish(replace(opened.manifest, golden=wrong))
    return place


@pytest.mark.slow
def test_a_missing_engine_ends_it_with_the_exit_code_of_the_worker(tiny, capsys, monkeypatch, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('gone', name='onnxruntime')")
    monkeypatch.syspath_prepend(tmp_path)
    code, _, err = run(capsys, tiny, "--backend", "onnxruntime")
    assert code == 5 and "tiny onnxruntime: the package `onnxruntime` is not installed" in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_profiler_leaves_no_worker(number, tiny, tmp_path, wait_for_end):
    file = tmp_path / "run.json"
    command = [sys.executable, "-m", "mmedge", "profile", tiny, "--rounds", "1000000", "--processes", "1", "-o", file]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (file.exists() and b'"phase":"round"' in file.read_bytes()):
            time.sleep(0.1)
        workers = [int(child) for child in _children(process.pid)]
        process.send_signal(number)
        assert "stopped by" in process.stderr.read()
    assert len(workers) == 2 and process.returncode == 128 + number
    for worker in workers:
        wait_for_end(worker)
    assert not read_run(file).complete and read_run(file).protocol.stop_reason == "interrupted"


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.slow
def test_threads_that_the_machine_lacks_are_a_usage_error(capsys, tiny):
    code, _, err = run(capsys, tiny, "--threads", 100_000)
    assert code == 2 and "100000 threads are asked for" in err
