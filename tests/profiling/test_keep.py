import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from mmedge.errors import InputError, UsageError
from mmedge.profiling import keep
from mmedge.profiling.keep import read_run, write_run
from mmedge.profiling.run import SCHEMA, Absolute, Results

OLDER = Path(__file__).with_name("older") / "mmedge.profile.1.json"


@pytest.fixture
def kept(make_run, tmp_path):
    """A run's file as builtins, and what writes it back."""
    path = tmp_path / "run.json"
    write_run(make_run(rounds=4, processes=2, extras=True), path)

    def change(make) -> Path:
        found = json.loads(path.read_bytes())
        make(found)
        path.write_text(json.dumps(found))
        return path

    return change


@pytest.mark.parametrize("name", ["run.json", "run.json.gz"])
def test_a_run_comes_back_as_it_was(make_run, tmp_path, name):
    run = make_run(extras=True)
    write_run(run, tmp_path / name)
    assert read_run(tmp_path / name) == run and os.listdir(tmp_path) == [name]


def test_a_compressed_run_is_smaller_and_always_the_same(make_run, tmp_path):
    for name in ("a.json", "a.json.gz", "b.json.gz"):
        write_run(make_run(), tmp_path / name)
    plain, first, second = ((tmp_path / name).read_bytes() for name in ("a.json", "a.json.gz", "b.json.gz"))
    assert first == second and len(first) < len(plain) / 3


def test_a_run_that_was_not_completed_is_read_and_marked(make_run, tmp_path):
    write_run(make_run(complete=False, finished=False), tmp_path / "run.json")
    assert not read_run(tmp_path / "run.json").complete


def test_notes_are_kept(kept, tmp_path):
    path = kept(lambda found: found.update({"x-board": "rev B", "x-job": {"id": 7}}))
    run = read_run(path)
    assert run.notes == {"x-board": "rev B", "x-job": {"id": 7}}
    write_run(run, tmp_path / "again.json")
    assert read_run(tmp_path / "again.json") == run


def test_unknown_keys_are_ignored(kept):
    def change(found):
        found["colour"] = 1
        found["samples"][0]["colour"] = 1

    assert read_run(kept(change)).notes == {}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "input data was truncated"),
        (b"<html>", "JSON is malformed"),
        (b"[1, 2]", "it is JSON, but not a run of the profiler"),
        (b"{}", "it has no `schema`"),
        (b'{"schema": 2}', "its `schema` is `2`"),
        (b'{"schema": "mmedge.profile/2.5"}', "its `schema` is `mmedge.profile/2.5`"),
        (b'{"schema": "mmedge.profile/2"}', "missing required field `mmedge`"),
        (b"\xff\xfe", "JSON is malformed"),
        (b"\x1f\x8b\x08nonsense", "it is not whole"),
        (b'{"a":' + b"[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, raw, reason):
    (tmp_path / "run.json").write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_run(tmp_path / "run.json")
    assert reason.lower() in caught.value.message.lower() and "\n" not in caught.value.message


def test_a_cut_off_file_is_refused(kept):
    path = kept(lambda found: None)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        read_run(path)


def test_a_cut_off_compressed_file_is_refused(make_run, tmp_path):
    write_run(make_run(), path := tmp_path / "run.json.gz")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="not whole"):
        read_run(path)


def test_a_newer_schema_asks_to_update(kept):
    with pytest.raises(InputError, match=r"newer mmedge, as `mmedge.profile/3`") as caught:
        read_run(kept(lambda found: found.update(schema="mmedge.profile/3", samples="are called otherwise")))
    assert "update mmedge" in caught.value.hint


def test_a_wrong_type_is_named_with_its_place(kept):
    with pytest.raises(InputError, match=r"expected `int`, got `str` - at `\$.samples\[2\].answer_ns`"):
        read_run(kept(lambda found: found["samples"][2].update(answer_ns="fast")))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(kept, number):
    path = kept(lambda found: found["samples"][0].update(answer_ns="HERE"))
    path.write_text(path.read_text().replace('"HERE"', number))
    with pytest.raises(InputError):
        read_run(path)


@pytest.mark.parametrize(
    ("where", "field"),
    [
        ("samples", "c"),
        ("samples", "input"),
        ("samples", "answer"),
        ("answers", "input"),
        ("memory", "c"),
        ("cold", "c"),
        ("load", "c"),
        ("layers", "c"),
        ("roofline", "c"),
        ("roofline", "input"),
    ],
)
@pytest.mark.parametrize("place", [-1, 1000])
def test_a_row_that_names_what_is_not_there_is_refused(kept, where, field, place):
    with pytest.raises(InputError, match=rf"`\$.{where}\[0\].{field}` is {place}, of "):
        read_run(kept(lambda found: found[where][0].update({field: place})))


@pytest.mark.parametrize("field", ["process", "round", "start_ns", "answer_ns"])
def test_a_number_that_no_array_can_hold_is_refused(kept, field):
    with pytest.raises(InputError, match=rf"`\$.samples\[1\].{field}` has 31 digits"):
        read_run(kept(lambda found: found["samples"][1].update({field: -(10**30)})))


def test_a_ratio_to_a_candidate_that_is_not_there_is_refused(kept):
    with pytest.raises(InputError, match=r"`\$.results.ratios\[0\].base` is 9"):
        read_run(kept(lambda found: found["results"]["ratios"][0].update(base=9)))


def test_a_score_of_other_inputs_is_refused(kept):
    score = {"c": 0, "metric": "exact", "per_input": [1], "mean": 1, "agree": [], "agreement": None, "edit": None}
    with pytest.raises(InputError, match=r"it has 8 inputs, `per_input` of `\$.quality\[0\]` has 1"):
        read_run(kept(lambda found: found.update(quality=[score])))


def test_a_run_without_candidates_is_refused(kept):
    with pytest.raises(InputError, match="no candidates"):
        read_run(kept(lambda found: found.update(candidates=[])))


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="there is no run at"):
        read_run(tmp_path / "none.json")


def test_a_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="is a folder"):
        read_run(tmp_path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_beyond_the_bound_is_refused(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(keep, "LARGEST", 1 << 20)
    (tmp_path / "run.json").write_bytes(pack(b" " * (2 << 20)))
    with pytest.raises(InputError, match="more than 1 MiB"):
        read_run(tmp_path / "run.json")


def test_a_number_that_could_not_be_read_again_is_not_written(make_run, tmp_path):
    run = make_run()
    broken = replace(run, protocol=replace(run.protocol, margin=float("nan")))
    with pytest.raises(ValueError, match="margin"):
        write_run(broken, tmp_path / "run.json")
    assert not os.listdir(tmp_path)


def test_a_row_of_a_candidate_that_is_not_there_is_not_written(make_run, tmp_path):
    broken = replace(make_run(), results=Results((Absolute(7, "answer_ms", "median", 1.0, 1.0, 1.0, 9),)))
    with pytest.raises(ValueError, match=r"results.abs\[0\].c` is 7"):
        write_run(broken, tmp_path / "run.json")


def test_a_run_of_the_first_version_still_loads():
    run, old = read_run(OLDER), json.loads(OLDER.read_bytes())
    assert run.schema == SCHEMA and run.complete and len(run.samples) == len(old["runs"])
    assert [each.name for each in run.candidates] == [each["name"] for each in old["candidates"]]
    assert [each.id for each in run.inputs.items] == [each["name"] for each in old["queries"]]
    for sample, answer in zip(run.samples, old["runs"], strict=True):
        assert run.answers[sample.answer].text == answer["text"]
        assert sample.answer_ns == pytest.approx(answer["answer_ms"] * 1e6)
        assert sample.stages_ns.keys() == answer["stages_ms"].keys()
    assert len(run.rounds) == old["settings"]["rounds"] * len(run.candidates)
    first = old["results"][1]["metrics"][0]
    assert run.absolute(1, "answer_ms").value == first["ms"]["median"]
    assert run.ratio(1).low == first["ratio"]["low"] and run.ratio(1).verdict == "inconclusive"
    assert run.machine.id == "" and run.energy.method is None and run.energy.reason
    assert run.validity.flags[0].code == "older" and len(run.validity.flags) == 1 + len(old["doubts"])


def test_a_run_of_the_first_version_is_written_as_one_of_today(tmp_path):
    run = read_run(OLDER)
    write_run(run, tmp_path / "run.json")
    assert read_run(tmp_path / "run.json") == run


def test_a_damaged_run_of_the_first_version_is_refused(tmp_path):
    old = json.loads(OLDER.read_bytes())
    old["runs"][3]["candidate"] = 8
    (tmp_path / "old.json").write_bytes(msgspec.json.encode(old))
    with pytest.raises(InputError, match="is 8, of 3 candidates"):
        read_run(tmp_path / "old.json")


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from mmedge.profiling.keep import read_run, write_run

path = Path(sys.argv[1])
run = read_run(path)
print("ready", flush=True)
while True:
    write_run(run, path)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.01, 0.05, 0.2])
def test_a_writer_killed_at_any_time_leaves_a_whole_run(make_run, tmp_path, after_s):
    run, path = make_run(rounds=200), tmp_path / "run.json"
    write_run(run, path)
    with subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, path], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        time.sleep(after_s)
        writer.kill()
    assert read_run(path) == run
