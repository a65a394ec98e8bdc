import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from msgspec.structs import replace

from mmedge.commands.compare import compare
from mmedge.errors import UsageError
from mmedge.profiling.keep import write_run
from mmedge.profiling.numbers.estimates import finished
from mmedge.profiling.showing.terminal_rows import WIDTH


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two runs, and one of another machine whose int8 candidate is not verified."""
    spec = spec_from_file_location("made_up_runs", Path(__file__).parents[1] / "profiling" / "made_up_runs.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(("a", "b", "c")):
        run = finished(module.made_up_run(finished=False, seed=seed, changed=seed))
        run = replace(run, started=f"2026-01-0{seed + 1}T12:00:00+00:00", software={"onnxruntime": f"1.{seed}"})
        if name == "c":
            first, second, twin = run.candidates
            run = replace(
                run,
                machine=replace(run.machine, id="6" * 64, name="Another"),
                candidates=(first, replace(second, unverified=True), twin),
            )
        write_run(run, folder / f"{name}.json")
    return folder


@pytest.mark.parametrize("second", [(), ("a.json",)])
def test_one_run(files, capsys, second):
    assert compare(files / "a.json", *(files / name for name in second)) == 0
    out = capsys.readouterr().out
    assert "paired by round" in out and "faster" in out and "UNPAIRED" not in out


def test_every_line_of_two_runs_is_labelled(files, capsys):
    assert compare(files / "a.json", files / "b.json", unpaired=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("UNPAIRED") for line in lines) and max(map(len, lines)) <= WIDTH
    text = "\n".join(lines)
    assert "onnxruntime: 1.0 -> 1.1" in text and "1 of 8 answers differ" in text


def test_another_machine_has_no_verdicts(files, capsys):
    assert compare(files / "a.json", files / "c.json", unpaired=True) == 9
    out = capsys.readouterr().out
    assert "machines differ" in out and "UNVERIFIED" in out
    assert not any(word in out for word in ("faster", "slower", " same", "inconclusive"))


def test_json(files, capsys):
    compare(files / "a.json", files / "b.json", unpaired=True, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["marks"] == ["UNPAIRED"] and len(found["pairs"]) == 2


def test_two_runs_are_refused(files):
    with pytest.raises(UsageError, match="are two runs"):
        compare(files / "a.json", files / "b.json")
