import io
import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from mmedge.core.bundle import open_bundle

slow = pytest.mark.slow


def test_a_bundle_that_is_not_there_is_a_usage_error(mmedge, tmp_path):
    shown = mmedge("caption", tmp_path / "none.bundle", "photo.jpg")
    assert shown.code == 2 and "there is no bundle at" in shown.err


def test_no_picture_is_a_usage_error(mmedge, tmp_path):
    assert mmedge("caption", tmp_path) == (
        2,
        "",
        "error: no picture is given\n\nhint: mmedge caption BUNDLE photo.jpg\n",
    )


def test_an_option_among_the_pictures_is_a_usage_error(mmedge, tmp_path):
    shown = mmedge("caption", tmp_path, "photo.jpg", "--jsno")
    assert shown.code == 2 and "unknown option: --jsno" in shown.err


@pytest.mark.parametrize("name", ["a" * 300, "notes.txt/photo.jpg", "nul\0byte.jpg"])
@slow
def test_a_path_that_the_system_refuses_is_no_bug(mmedge, captioner, pictures, name):
    shown = mmedge("caption", captioner, pictures / name)
    assert shown.code == 3 and "cannot read the picture" in shown.err


@slow
def test_a_caption_is_one_line(mmedge, captioner, pictures):
    shown = mmedge("caption", captioner, pictures / "red.png")
    assert (shown.code, shown.out.count("\n"), shown.err) == (0, 1, "")
    assert shown.out.strip()


@slow
def test_json_tells_the_tokens_and_the_time_of_each_stage(mmedge, captioner, pictures):
    plain = mmedge("caption", captioner, pictures / "red.png")
    shown = mmedge("caption", captioner, pictures / "red.png", "--json")
    answer = json.loads(shown.out)
    assert shown.code == 0 and answer["text"] == plain.out.strip()
    assert answer["tokens"] and {"read", "encode", "decode_loop"} <= answer["stages_ms"].keys()


@slow
def test_a_picture_may_come_from_standard_input(mmedge, captioner, pictures, monkeypatch):
    data = (pictures / "red.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert mmedge("caption", captioner, "-").out == mmedge("caption", captioner, pictures / "red.png").out


@slow
def test_closed_standard_input_exits_3(mmedge, captioner, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    shown = mmedge("caption", captioner, "-")
    assert shown.code == 3 and "standard input is closed" in shown.err


@slow
def test_a_folder_stands_for_its_pictures_in_order(mmedge, captioner, pictures):
    shown = mmedge("caption", captioner, pictures)
    names = [line.partition(": ")[0] for line in shown.out.splitlines()]
    assert (shown.code, names) == (0, [str(pictures / "blue.png"), str(pictures / "red.png")])


@slow
def test_a_folder_without_pictures_exits_3(mmedge, captioner, tmp_path):
    shown = mmedge("caption", captioner, tmp_path)
    assert shown.code == 3 and "has no pictures" in shown.err


@slow
def test_of_several_pictures_a_bad_one_is_told_and_the_others_are_answered(mmedge, captioner, pictures):
    shown = mmedge("caption", captioner, pictures / "red.png", pictures / "notes.txt", pictures / "blue.png")
    assert shown.code == 3 and len(shown.out.splitlines()) == 2
    assert "notes.txt" in shown.err and "notes.txt" not in shown.out


@slow
def test_of_several_pictures_a_bad_one_is_an_object_in_its_place(mmedge, captioner, pictures):
    bad = pictures / "notes.txt"
    shown = mmedge("caption", captioner, pictures / "red.png", bad, pictures / "blue.png", "--json")
    first, second, third = map(json.loads, shown.out.splitlines())
    assert shown.code == 3 and first["text"] and third["text"]
    assert second["picture"] == str(bad) and second["error"].keys() == {"exit_code", "message", "hint"}
    assert second["error"]["exit_code"] == 3 and "is not a picture" in second["error"]["message"]


@slow
def test_max_tokens_bounds_the_caption(mmedge, captioner, pictures):
    shown = mmedge("caption", captioner, pictures / "red.png", "--max-tokens", "2", "--json")
    assert len(json.loads(shown.out)["tokens"]) <= 2


@slow
@pytest.mark.parametrize("threads", [-1, 100_000])
def test_threads_that_the_machine_lacks_are_a_usage_error(mmedge, captioner, pictures, threads):
    shown = mmedge("caption", captioner, pictures / "red.png", "--threads", threads)
    assert shown.code == 2 and f"{threads} threads" in shown.err and f"{os.cpu_count()} cores" in shown.err


@slow
def test_a_bundle_for_an_engine_that_is_not_there_exits_5_and_runs_on_another(mmedge, foreign_bundle, pictures):
    shown = mmedge("caption", foreign_bundle, pictures / "red.png")
    hint = "run it here with --backend onnxruntime"
    assert shown == (5, "", f"error: this version has no engine `coreml`\n\nhint: {hint}\n")
    assert mmedge("caption", foreign_bundle, pictures / "red.png", "--backend", "onnxruntime").code == 0


@slow
def test_where_the_engine_is_missing_a_fall_back_answers_and_says_so(
    mmedge, captioner, bundle_with_fallback, pictures, caplog
):
    want, shown = (mmedge("caption", bundle, pictures / "red.png") for bundle in (captioner, bundle_with_fallback))
    assert (shown.code, shown.out) == (0, want.out)
    assert "onnxruntime runs `encoder`, `decoder` instead of coreml: this version has no engine `coreml`" in caplog.text


@slow
def test_a_mistyped_engine_is_a_usage_error(mmedge, captioner, pictures):
    shown = mmedge("caption", captioner, pictures / "red.png", "--backend", "onnxruntine")
    assert shown.code == 2 and "did you mean `onnxruntime`?" in shown.err


def test_resuming_needs_a_file(mmedge, tmp_path):
    shown = mmedge("caption", tmp_path, "photo.jpg", "--resume")
    assert shown.code == 2 and "--resume" in shown.err


@slow
def test_answers_go_into_a_file_as_json_lines(mmedge, captioner, pictures, tmp_path):
    plain = mmedge("caption", captioner, pictures, "--json")
    output = tmp_path / "answers.jsonl"
    assert mmedge("caption", captioner, pictures, "-o", output) == (0, "", "answered 2 of 2 pictures\n")
    want, lines = ([*map(json.loads, text.splitlines())] for text in (plain.out, output.read_text()))
    for name in ("picture", "text", "tokens", "engines"):
        assert [line[name] for line in lines] == [line[name] for line in want]
    assert {line["digest"] for line in lines} == {open_bundle(captioner).digest}


@slow
def test_resuming_answers_only_what_is_left_and_says_so(mmedge, captioner, pictures, tmp_path):
    output = tmp_path / "answers.jsonl"
    mmedge("caption", captioner, pictures / "red.png", "-o", output)
    shown = mmedge("caption", captioner, pictures, pictures / "notes.txt", "-o", output, "--resume", "--json")
    assert shown.code == 3 and f"skipped 1 of 3 pictures, answered in `{output}` already" in shown.err
    told = json.loads(shown.out)
    assert (told["answered"], told["skipped"]) == (1, 1)
    assert told["bad"][0]["picture"] == str(pictures / "notes.txt") and told["bad"][0]["error"]["exit_code"] == 3
    assert "answered 1 of 3 pictures, 1 could not be used" in shown.err
    named = [json.loads(line)["picture"] for line in output.read_text().splitlines()]
    assert named == [str(pictures / "red.png"), str(pictures / "blue.png")]


@slow
def test_where_all_is_answered_no_engine_is_opened(mmedge, captioner, pictures, tmp_path, monkeypatch):
    output = tmp_path / "answers.jsonl"
    mmedge("caption", captioner, pictures, "-o", output)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert mmedge("caption", captioner, pictures, "-o", output, "--resume").code == 0


@slow
def test_after_a_kill_each_picture_is_answered_once(mmedge, captioner, pictures, tmp_path):
    for index in range(40):
        shutil.copy(pictures / "red.png", pictures / f"{index}.png")
    output = tmp_path / "answers.jsonl"
    command = [sys.executable, "-m", "mmedge", "caption", captioner, pictures, "-o", output]
    child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while child.poll() is None and not (output.exists() and output.read_bytes().count(b"\n") > 2):
        time.sleep(0.005)
    child.kill()
    child.wait(60)
    before = output.read_bytes().count(b"\n")
    assert mmedge("caption", captioner, pictures, "-o", output, "--resume").code == 0
    named = [json.loads(line)["picture"] for line in output.read_text().splitlines()]
    assert len(named) == len(set(named)) == 42 and before > 2


@slow
def test_a_model_that_looks_at_pictures_alone_refuses_a_video(mmedge, captioner, pictures):
    shown = mmedge("caption", captioner, pictures, "--frames", 2)
    assert shown == (
        3,
        "",
        "error: this model looks at pictures, not at videos\n\nhint: leave out --frames, or name its frames\n",
    )


@slow
def test_of_a_video_at_least_one_frame_is_looked_at(mmedge, captioner, pictures):
    shown = mmedge("caption", captioner, pictures, "--frames", 0)
    assert shown == (2, "", "error: --frames is 0, it must be at least 1\n")


@pytest.mark.parametrize("name,message", [("--max-token", "unknown option: --max-token"), ("-", "standard input")])
def test_what_is_no_video_among_videos_is_a_usage_error(mmedge, tmp_path, name, message):
    shown = mmedge("caption", tmp_path, "clip.mp4", name, "--frames", 4)
    assert shown.code == 2 and message in shown.err
