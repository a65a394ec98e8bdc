import multiprocessing
import os

import pytest
from msgspec.structs import replace

from mmedge.errors import BusyError, InputError, UsageError
from mmedge.profiling.judging import history
from mmedge.profiling.judging.gate import outcome
from mmedge.profiling.judging.history import Entry, History, append, entry_of
from mmedge.profiling.judging.rules import Rule, Rules


def entry(number: int) -> Entry:
    return Entry(history.SCHEMA, f"2026-01-{number:02}T12:00:00+00:00", "0123abc", "5" * 64, 0, ())


def test_each_run_is_a_line(tmp_path):
    path = tmp_path / "history.jsonl"
    for number in (1, 2, 3):
        kept = append(entry(number), path)
    assert len(path.read_bytes().splitlines()) == 3
    assert [each.date[8:10] for each in kept.entries] == ["01", "02", "03"]


def test_an_entry_holds_what_was_judged(make_run):
    run = make_run()
    found = outcome(run, Rules((Rule("answer_ms", vs="baseline", max=0.5), Rule("answer_ms", max="9 s"))))
    kept = entry_of(run, found)
    assert (kept.commit, kept.machine, kept.exit_code) == ("0123abc", run.machine.id, 8)
    ratio, time = kept.values
    assert (ratio.stat, ratio.outcome, time.stat, time.outcome) == ("ratio_median", "broken", "median", "holds")
    assert (ratio.value, ratio.low, ratio.high) == (run.ratio(1).ratio, run.ratio(1).low, run.ratio(1).high)


def test_a_doubted_run_says_so(make_run):
    run = make_run(complete=False)
    assert entry_of(run, outcome(run, Rules((Rule("answer_ms", max="9 s"),)))).marks == ("DOUBTED",)


def test_a_torn_last_line_loses_itself_alone(tmp_path):
    path = tmp_path / "history.jsonl"
    append(entry(1), path)
    append(entry(2), path)
    path.write_bytes(path.read_bytes()[:-20])
    kept = append(entry(3), path)
    assert [each.date[8:10] for each in kept.entries] == ["01", "03"] and kept.lost == 1
    assert append(entry(4), path) == History((*kept.entries, entry(4)), 1)


def test_a_file_that_is_no_history_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("buy milk\n")
    with pytest.raises(InputError, match="is not a history"):
        append(entry(1), path)
    assert path.read_text() == "buy milk\n"


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("there"), os.mkfifo])
def test_what_is_no_file_is_refused(tmp_path, make):
    make(tmp_path / "history.jsonl")
    with pytest.raises(UsageError, match="cannot write the history"):
        append(entry(1), tmp_path / "history.jsonl")


def test_a_missing_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        append(entry(1), tmp_path / "none" / "history.jsonl")


def test_a_disk_that_refuses_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "history.jsonl"
    append(entry(1), path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError, match="full"):
        append(entry(2), path)
    assert path.read_bytes() == before


def _full(descriptor):
    raise OSError(28, "the disk is full")


def _append_many(path, first):
    for number in range(20):
        append(replace(entry(1), date=f"{first + number}"), path)


def test_two_writers_lose_nothing(tmp_path):
    path = tmp_path / "history.jsonl"
    make = multiprocessing.get_context("spawn").Process
    writers = [make(target=_append_many, args=(path, first)) for first in (100, 200)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    kept = append(entry(1), path)
    assert [writer.exitcode for writer in writers] == [0, 0] and kept.lost == 0
    assert {each.date for each in kept.entries[:-1]} == {str(n + m) for n in (100, 200) for m in range(20)}


def test_a_writer_that_never_ends_is_not_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "history.jsonl"
    monkeypatch.setattr(history, "PATIENCE_S", 0.05)
    with history._locked(path), pytest.raises(BusyError, match="is being written by another process"):
        append(entry(1), path)
