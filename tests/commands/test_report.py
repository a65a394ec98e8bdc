import gzip
import json
import sys

import pytest
from msgspec.structs import replace

from mmedge.commands.report import report
from mmedge.errors import BackendError, InputError, UsageError
from mmedge.profiling.keep import encode_run, write_run
from mmedge.profiling.run import (
    SCHEMA,
    Answer,
    Candidate,
    Input,
    Inputs,
    Machine,
    Made,
    Processor,
    Protocol,
    Run,
    Sample,
)

RUN = Run(
    schema=SCHEMA,
    mmedge=Made("0"),
    started="2026-01-01T00:00:00+00:00",
    seed=0,
    argv=("mmedge", "profile"),
    complete=True,
    machine=Machine("0" * 64, "board", Processor("cpu", "aarch64", 4), 1 << 30, 0, "6.1", "Debian"),
    software={},
    candidates=(Candidate("scenes", "a.bundle", "0" * 64, None, {}, 1),),
    inputs=Inputs("golden", "0" * 64, (Input("one", "caption", ""),)),
    protocol=Protocol("single", "rounds", 0, 1, 1.0, 0.02, 0.03, rounds=1),
    samples=(Sample(0, 0, 0, 0, "round", 0, 5_000_000, {"encode": 4_000_000}, (), 0),),
    answers=(Answer(0, 0, "a picture"),),
)


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "run.json"
    write_run(RUN, path)
    return path


def test_without_an_option_the_page_is_beside_the_run(kept, capsys):
    report(kept)
    assert (kept.parent / "run.html").read_text().startswith("<!DOCTYPE html>")
    assert capsys.readouterr().out == f"{kept.parent / 'run.html'}\n"


def test_a_compressed_run_makes_a_page_of_the_same_name(tmp_path):
    (tmp_path / "run.json.gz").write_bytes(gzip.compress(encode_run(RUN)))
    report(tmp_path / "run.json.gz")
    assert (tmp_path / "run.html").exists()


def test_what_is_asked_for_is_written_and_nothing_else(kept, tmp_path, capsys):
    report(kept, trace=tmp_path / "trace.json", csv=tmp_path / "rows.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"run.json", "trace.json", "rows.csv"}
    assert json.loads((tmp_path / "trace.json").read_bytes())["traceEvents"]
    assert (tmp_path / "rows.csv").read_text().count("\n") == 2
    assert capsys.readouterr().out.split() == [str(tmp_path / "trace.json"), str(tmp_path / "rows.csv")]


def test_a_file_that_is_there_is_kept_unless_forced(kept, tmp_path):
    (tmp_path / "rows.csv").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        report(kept, csv=tmp_path / "rows.csv")
    assert (tmp_path / "rows.csv").read_text() == "mine"
    report(kept, csv=tmp_path / "rows.csv", force=True)
    assert (tmp_path / "rows.csv").read_text() != "mine"


def test_the_run_itself_is_never_overwritten(kept):
    with pytest.raises(UsageError, match="named twice"):
        report(kept, trace=kept, force=True)
    assert json.loads(kept.read_bytes())["schema"] == SCHEMA


def test_two_outputs_of_one_name_are_refused_before_anything_is_written(kept, tmp_path):
    with pytest.raises(UsageError, match="named twice"):
        report(kept, html=tmp_path / "out", csv=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_is_refused(kept, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        report(kept, html=tmp_path / "gone" / "run.html")


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="not a run"):
        report(tmp_path / "run.json")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_run_that_was_interrupted_says_so(kept, tmp_path):
    write_run(replace(RUN, complete=False), kept)
    report(kept)
    assert "incomplete run" in (tmp_path / "run.html").read_text()


def test_without_matplotlib_the_hint_names_the_extra_and_tables_are_still_made(kept, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BackendError) as refused:
        report(kept)
    assert "mmedge[profile]" in (refused.value.hint or "")
    report(kept, csv=tmp_path / "rows.csv", trace=tmp_path / "trace.json")
